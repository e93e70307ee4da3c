#!/usr/bin/env bash
# gocloud.dev 0.46.0, the library behind Pulumi's state in folders (`file://`): a file is replaced in one step, but the
# file beside it with its attributes (NAME.attrs) is opened, emptied and then written. Who reads the first in that moment
# gets a bare "EOF". In Pulumi 3.250.0 it is "failed to load checkpoint: EOF" of `pulumi stack output` (or `export`, or
# `preview`) while another command saves the state; to try again is all that it takes.
#
# Seen: some of the reads of 20 seconds beside a writer fail with EOF; none with `metadata=skip` in the bucket's URL, as no file
# with attributes is written then.
# Builds a small program with the library in a temporary folder; needs Go 1.25 or newer.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >go.mod <<'MOD'
module torn

go 1.25

require gocloud.dev v0.46.0
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob"
)

func main() {
	ctx := context.Background()
	for _, options := range []string{"", "&metadata=skip"} {
		folder, err := os.MkdirTemp(".", "bucket")
		if err != nil {
			panic(err)
		}
		path, _ := os.Getwd()
		bucket, err := blob.OpenBucket(ctx, "file://"+path+"/"+folder+"?no_tmp_dir=true"+options)
		if err != nil {
			panic(err)
		}
		if err := bucket.WriteAll(ctx, "state.json", []byte("{}"), nil); err != nil {
			panic(err)
		}
		var done atomic.Bool
		go func() {
			for !done.Load() {
				_ = bucket.WriteAll(ctx, "state.json", []byte("{}"), nil)
			}
		}()
		errors := map[string]int{}
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
			if _, err := bucket.ReadAll(ctx, "state.json"); err != nil {
				errors[err.Error()]++
			}
		}
		done.Store(true)
		failed := "no"
		for text := range errors {
			if strings.HasSuffix(text, "EOF") {
				failed = "yes"
			}
		}
		fmt.Printf("options %q: EOF seen: %s\n", options, failed)
	}
}
GO
go mod tidy >/dev/null 2>&1
go build -o torn .

said=$(./torn)
echo "$said"
[ "$said" = 'options "": EOF seen: yes
options "&metadata=skip": EOF seen: no' ] || { echo 'CHANGED' >&2; exit 1; }
