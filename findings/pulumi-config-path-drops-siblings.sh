#!/usr/bin/env bash
# Pulumi 3.250.0: `--config KEY.PATH=VALUE --config-path` of `pulumi preview` (and `up`) lays {PATH: VALUE} over the whole
# of KEY in the stack file and saves that, also when the preview fails before any program has run: every other value
# under KEY is gone. `pulumi config set-all --path`, which takes the same text, keeps them.
#
# Seen: "routing: {cart: {weights: {v2: 50}}}" in the place of two services with weights and a timeout.
# Builds the CLI from its Go module in a temporary folder (minutes when nothing is cached); needs Go 1.26.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

mkdir cli
cat >cli/go.mod <<'MOD'
module cli

go 1.26

require github.com/pulumi/pulumi/pkg/v3 v3.250.0

replace github.com/atotto/clipboard => github.com/tgummerer/clipboard v0.0.0-20241001131231-d02d263e614e
MOD
cat >cli/tools.go <<'GO'
//go:build tools

package cli

import _ "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
GO
(
  cd cli
  go mod tidy >/dev/null 2>&1
  go build -o ../pulumi -ldflags '-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v3.250.0' \
    github.com/pulumi/pulumi/pkg/v3/cmd/pulumi
)

export PULUMI_BACKEND_URL=file://$folder PULUMI_CONFIG_PASSPHRASE='' PULUMI_HOME=$folder/home PULUMI_SKIP_UPDATE_CHECK=true
printf 'name: shop\nruntime: none\n' >Pulumi.yaml # no program is needed to see it
./pulumi stack init dev --non-interactive >/dev/null
written='config:
  shop:routing:
    cart: {weights: {v1: 70, v2: 30}, timeout: 3s}
    catalog: {weights: {stable: 95, canary: 5}}'

printf '%s\n' "$written" >Pulumi.dev.yaml
./pulumi preview --stack dev --non-interactive --config routing.cart.weights.v2=50 --config-path >/dev/null 2>&1 || true
by_flag=$(./pulumi config get routing --stack dev)

printf '%s\n' "$written" >Pulumi.dev.yaml
./pulumi config set-all --stack dev --path --plaintext routing.cart.weights.v2=50
by_command=$(./pulumi config get routing --stack dev)

printf '%s\n%s\n' "pulumi $(./pulumi version)" "by preview --config-path: $by_flag" "by config set-all --path: $by_command"
[ "$by_flag" = '{"cart":{"weights":{"v2":50}}}' ] || { echo 'CHANGED: preview keeps what it is not told of' >&2; exit 1; }
[ "$by_command" = '{"cart":{"timeout":"3s","weights":{"v1":70,"v2":50}},"catalog":{"weights":{"canary":5,"stable":95}}}' ] ||
  { echo 'CHANGED: config set-all --path' >&2; exit 1; }
