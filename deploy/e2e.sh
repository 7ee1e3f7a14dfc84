#!/usr/bin/env bash
# Behind .github/workflows/e2e.yml, on the cluster that kubectl speaks to, with the image holdfast:dev on its nodes: installs the
# chart, has it test itself, and restarts every pod while clients ask. Not one request may fail.
set -euo pipefail
cd "$(dirname "$0")/.."
release=holdfast
# By default the chart lets in what comes from this namespace, so clients stand where an ingress would.
clients=ingress-nginx
seconds=${E2E_SECONDS:-180}
ours=(--selector "app.kubernetes.io/instance=$release,app.kubernetes.io/component=serve")

helm upgrade --install "$release" helm/holdfast --values helm/holdfast/values-dev.yaml \
    --set serve.replicas=2 --set-string settings.limits.address_read=1000000/1m --wait --timeout 10m
helm test "$release" --logs --timeout 5m

kubectl create namespace "$clients" --dry-run=client --output yaml | kubectl apply --filename -
kubectl delete pod load --namespace "$clients" --ignore-not-found --wait
port=$(kubectl get service "$release" --output 'jsonpath={.spec.ports[?(@.name=="http")].port}')
namespace=$(kubectl get service "$release" --output 'jsonpath={.metadata.namespace}')
url="http://$release.$namespace.svc:$port/v1/products?limit=[1-100]"
# Each curl keeps its connection for 100 requests, as clients do: those are what a careless shutdown cuts.
# shellcheck disable=SC2016 # It is expanded in the pod.
ask='
end=$(($(date +%s) + SECONDS_TO_ASK))
ask() {
    while [ "$(date +%s)" -lt "$end" ]; do
        curl --silent --max-time 10 --output /dev/null --write-out "%{http_code}\n" "$URL" || echo "curl ended with $?"
    done
}
# Counted here: a log of every answer would be rotated away before it is read.
for client in 1 2 3 4; do ask >"/tmp/answers-$client" & done
wait
sort /tmp/answers-* | uniq -c
'
kubectl run load --namespace "$clients" --image curlimages/curl:8.10.1 --restart Never \
    --env "URL=$url" --env "SECONDS_TO_ASK=$seconds" --command -- sh -c "$ask"
kubectl wait pod/load --namespace "$clients" --for condition=Ready --timeout 2m

kubectl rollout restart deployment "${ours[@]}"
kubectl rollout status deployment "${ours[@]}" --timeout 5m
kubectl rollout restart deployment "${ours[@]}"
kubectl rollout status deployment "${ours[@]}" --timeout 5m

kubectl wait pod/load --namespace "$clients" --for jsonpath='{.status.phase}'=Succeeded --timeout "$((seconds + 60))s"
answers=$(kubectl logs load --namespace "$clients")
echo "answers during two rolling restarts:"
echo "$answers"
# One line, of one status.
read -r number status rest <<<"$(tr '\n' ' ' <<<"$answers")"
[[ $status == 200 && -z $rest && $number -gt 1000 ]]
