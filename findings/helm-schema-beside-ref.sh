#!/usr/bin/env bash
# Helm 3.17.3 and 3.22.0: what stands beside `$ref` in a chart's values.schema.json is passed over by the older one and
# counts in the newer one, but only where `$schema` names no draft before 2019-09: with draft-07 the newer one passes it
# over, too. So a chart with `$ref` beside `additionalProperties: false`, and a `$schema` without a draft, as Istio's
# gateway charts of 1.21 to 1.27.0 have it (istio/istio#57354), refuses its own values after an upgrade of Helm, and the
# same file with a draft's number is taken.
#
# Seen: 3.17.3 takes both; 3.22.0 refuses the one without a draft ("additional properties 'replicas' not allowed"), takes
# the other. Builds both from their Go modules in a temporary folder (minutes when nothing is cached); needs Go 1.26.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

chart() { # FOLDER SCHEMA-URI
  mkdir -p "$1/templates"
  printf 'apiVersion: v2\nname: %s\nversion: 1.0.0\n' "$1" >"$1/Chart.yaml"
  printf 'replicas: 1\n' >"$1/values.yaml"
  printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: it}\ndata: {replicas: "{{ .Values.replicas }}"}\n' \
    >"$1/templates/it.yaml"
  printf '{"$schema": "%s", "$ref": "#/$defs/values", "type": "object", "additionalProperties": false,
    "$defs": {"values": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}\n' "$2" \
    >"$1/values.schema.json"
}
chart undated 'http://json-schema.org/schema#'
chart draft7 'http://json-schema.org/draft-07/schema#'

for version in 3.17.3 3.22.0; do
  GOBIN=$folder/$version go install "helm.sh/helm/v3/cmd/helm@v$version" >/dev/null 2>&1
done

found=''
for version in 3.17.3 3.22.0; do
  for name in undated draft7; do
    if said=$("$version/helm" template it "./$name" 2>&1); then answer=taken; else answer=refused; fi
    printf 'helm %s, %s: %s\n' "$version" "$name" "$answer"
    [ $answer = taken ] || printf '%s\n' "$said" | sed 's/^/    /'
    found="$found $answer"
  done
done
[ "$found" = ' taken taken refused taken' ] || { echo "CHANGED: $found" >&2; exit 1; }
