// Validates Kubernetes objects against the API's JSON Schemas, which the npm packages kubernetes-models carry as compiled functions.
//
//     node validate_objects.mjs NODE_MODULES < objects.json        prints a JSON array of complaints
//
// A compiled schema looks at the fields that it knows and at no others: the objects are handed over in proxies that remember what was
// looked at, and a field that nobody looked at is one that the API does not have (the server would drop it, or refuse it with
// --validate=strict).
import { readFileSync } from "node:fs";
import { join } from "node:path";

const nodeModules = process.argv[2];
const packages = { "monitoring.coreos.com": "@kubernetes-models/prometheus-operator" };

function watched(value, seen, path) {
  if (value === null || typeof value !== "object") return value;
  const children = new Map();
  return new Proxy(value, {
    get(target, key) {
      const found = Reflect.get(target, key);
      if (typeof key === "symbol" || typeof found === "function") return found;
      const where = `${path}/${key}`;
      seen.add(where);
      if (found === null || typeof found !== "object") return found;
      if (!children.has(key)) children.set(key, watched(found, seen, where));
      return children.get(key);
    },
  });
}

function unseen(value, seen, path, complain) {
  if (value === null || typeof value !== "object") return;
  for (const [key, child] of Object.entries(value)) {
    const where = `${path}/${key}`;
    if (seen.has(where)) unseen(child, seen, where, complain);
    else complain(`${where}: the API has no such field`);
  }
}

const complaints = [];
for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const name = `${object.kind} ${object.metadata?.name}`;
  const complain = (text) => complaints.push(`${name}: ${text}`);
  const group = object.apiVersion.includes("/") ? object.apiVersion.split("/")[0] : "";
  const folder = join(nodeModules, packages[group] ?? "kubernetes-models", object.apiVersion);
  const model = join(folder, `${object.kind}.js`);
  let schema;
  try {
    schema = join(folder, /import\{validate\}from"([^"]+)"/.exec(readFileSync(model, "utf8"))[1]);
  } catch (error) {
    complain(`no schema for ${object.apiVersion} ${object.kind}: ${error.message}`);
    continue;
  }
  const { validate } = await import(schema);
  const seen = new Set();
  if (!validate(watched(object, seen, ""))) {
    for (const error of validate.errors) complain(`${error.instancePath || "/"}: ${error.keyword} ${JSON.stringify(error.params)}`);
  }
  unseen(object, seen, "", complain);
}
console.log(JSON.stringify(complaints));
