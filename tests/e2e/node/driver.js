// node-postgres against the router: connect, parameters, types, errors, a pool, notifications, cancel by timeout.
// The configuration comes as JSON in argv[2]; the answers go to stdout as JSON, and the test judges them.
'use strict';
const fs = require('fs');
const { Client, Pool } = require('pg');

const given = JSON.parse(process.argv[2]);
const connection = { ...given.connection, ssl: { ca: fs.readFileSync(given.ca, 'utf8'), servername: 'localhost' } };

async function main() {
  const answers = {};
  const client = new Client(connection);
  await client.connect();
  const where = await client.query('SELECT inet_server_port() AS port, pg_is_in_recovery() AS recovering, current_user AS who');
  answers.where = where.rows[0];
  const typed = await client.query('SELECT $1::int AS n, $2::text AS t, $3::jsonb AS j, $4::bytea AS b', [41 + 1, 'ünïcode', { a: [1] }, Buffer.from([0, 255])]);
  answers.typed = { n: typed.rows[0].n, t: typed.rows[0].t, j: typed.rows[0].j, b: typed.rows[0].b.toString('hex') };
  if (given.named_statements) {
    const twice = [];
    for (const n of [1, 2]) {
      twice.push((await client.query({ name: 'twice', text: 'SELECT $1::int * 2 AS n', values: [n] })).rows[0].n);
    }
    answers.twice = twice;
  }
  try {
    await client.query('SELECT 1/0');
  } catch (error) {
    answers.error = { code: error.code, message: error.message };
  }
  answers.afterwards = (await client.query('SELECT 1 AS n')).rows[0].n;
  await client.end();

  const pool = new Pool({ ...connection, max: 5 });
  const sums = await Promise.all(Array.from({ length: 50 }, (_, n) => pool.query('SELECT $1::int + 1 AS n', [n])));
  answers.pool = sums.reduce((sum, result) => sum + result.rows[0].n, 0);
  await pool.end();

  const refused = new Client({ ...connection, password: 'wrong' });
  try {
    await refused.connect();
  } catch (error) {
    answers.refused = { code: error.code, routine: error.routine };
  }
  console.log(JSON.stringify(answers));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
