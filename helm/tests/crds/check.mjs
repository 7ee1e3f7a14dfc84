// Reads a list of objects and writes for each what the schema of its kind says against it: null, or a text. Unknown kinds are refused.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const packages = {
  "argoproj.io": "argo-rollouts",
  "external-secrets.io": "external-secrets",
  "gateway.networking.k8s.io": "gateway-api",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
};
const modules = process.argv[2];

async function check(object) {
  const [group, version] = object.apiVersion.split("/");
  // By its path: the packages export it under a name that is not the group's.
  const path = `${modules}/@kubernetes-models/${packages[group]}/${group}/${version}/${object.kind}.js`;
  const model = (await import(pathToFileURL(path)))[object.kind];
  try {
    new model(object).validate();
    return null;
  } catch (error) {
    return error.message;
  }
}

const objects = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(await Promise.all(objects.map((object) => check(object).catch(String)))));
