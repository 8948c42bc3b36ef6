// pgjdbc against the router: each argument triple is a JDBC URL, a user and a password; one line of answers each.

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

public final class Driver {
    private static String exercise(String url, String user, String password) throws Exception {
        Properties properties = new Properties();
        properties.setProperty("user", user);
        properties.setProperty("password", password);
        List<String> answers = new ArrayList<>();
        try (Connection connection = DriverManager.getConnection(url, properties)) {
            try (Statement statement = connection.createStatement();
                 ResultSet row = statement.executeQuery("SELECT inet_server_port(), pg_is_in_recovery(), current_user")) {
                row.next();
                answers.add(row.getInt(1) + "," + row.getBoolean(2) + "," + row.getString(3));
            }
            long sum = 0;
            try (PreparedStatement prepared = connection.prepareStatement("SELECT ?::int + 1")) {
                for (int n = 0; n < 20; n++) { // beyond prepareThreshold, so named statements come into play
                    prepared.setInt(1, n);
                    try (ResultSet row = prepared.executeQuery()) {
                        row.next();
                        sum += row.getInt(1);
                    }
                }
            }
            answers.add(Long.toString(sum));
            connection.setAutoCommit(false);
            int rows = 0;
            try (Statement statement = connection.createStatement()) { // a portal, read in portions
                statement.setFetchSize(100);
                try (ResultSet row = statement.executeQuery("SELECT n FROM generate_series(1, 1000) AS n")) {
                    while (row.next()) {
                        rows++;
                    }
                }
            }
            answers.add(Integer.toString(rows));
            connection.commit();
            try (Statement statement = connection.createStatement()) { // the driver cancels over a connection of its own
                statement.setQueryTimeout(1);
                statement.executeQuery("SELECT pg_sleep(30)").close();
                answers.add("not cancelled");
            } catch (SQLException cancelled) {
                answers.add(cancelled.getSQLState());
            }
            connection.rollback();
        } catch (SQLException refused) {
            answers.add("refused " + refused.getSQLState());
        }
        return String.join(" ", answers);
    }

    public static void main(String[] arguments) throws Exception {
        for (int at = 0; at + 2 < arguments.length; at += 3) {
            System.out.println(exercise(arguments[at], arguments[at + 1], arguments[at + 2]));
        }
    }
}
