// Command pulumi-resource-command is a stand-in for Pulumi's own resource plugin pulumi-command 1.2.1. It is a
// development tool for the embedded local cluster: a program that runs with it runs unchanged with the real plugin.
// It has the resources command:local:Command (without assetPaths and archivePaths) and command:remote:Command and
// refuses everything else of that package by name.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	version     = "1.2.1+stand-in" // semantic versions compare without what follows the plus sign
	description = "A stand-in for Pulumi's pulumi-command 1.2.1, for the embedded local cluster only."
)

func main() {
	flags := flag.NewFlagSet("pulumi-resource-command", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "pulumi-resource-command %s\n%s\nPulumi starts it, with its own address.\n",
			version, description)
	}
	// Pulumi passes its own logging and tracing on to its plugins; this one logs to its resources alone.
	flags.Bool("logtostderr", false, "")
	flags.Int("v", 0, "")
	flags.String("tracing", "", "")
	_ = flags.Parse(os.Args[1:])
	if flags.NArg() != 1 {
		flags.Usage()
		os.Exit(2)
	}
	if err := serve(flags.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "pulumi-resource-command:", err)
		os.Exit(1)
	}
}

// serve serves the plugin to the engine at address until a signal ends it or the engine is gone.
func serve(address string) error {
	engine, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), rpcutil.GrpcChannelOptions())
	if err != nil {
		return fmt.Errorf("no client of the engine at %s: %w", address, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := rpcutil.Healthcheck(ctx, address, time.Minute, stop); err != nil {
		return fmt.Errorf("no watch on the engine at %s: %w", address, err)
	}
	ended := make(chan bool)
	context.AfterFunc(ctx, func() { close(ended) })
	server, err := rpcutil.ServeWithOptions(rpcutil.ServeOptions{
		Cancel: ended,
		Init: func(server *grpc.Server) error {
			pulumirpc.RegisterResourceProviderServer(server, newProvider(ctx, pulumirpc.NewEngineClient(engine)))
			return nil
		},
	})
	if err != nil {
		return err
	}
	fmt.Println(server.Port) // the plugin protocol: the engine reads the port from the first line
	return <-server.Done
}
