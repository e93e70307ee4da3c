// Real gRPC callers and servers for the tests: the servers also answer wrongly, in the ways that gRPC allows.
//
// Every method is served, by an empty message; callers use the standard health service, so that no code is generated.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

func main() {
	target := flag.String("call", "", "call this host:port until stdin ends, then print how many calls ended how")
	deadline := flag.Duration("deadline", time.Second, "of each call")
	pause := flag.Duration("pause", 10*time.Millisecond, "between the calls of one caller")
	callers := flag.Int("callers", 2, "how many call at once, each by a connection of its own")
	streams := flag.Bool("streams", false, "call the method that streams, and wait for its first message and its end")
	address := flag.String("serve", ":80", "serve at this address")
	how := flag.String("how", "good", "good, or in what way calls fail: headers, trailers, early, slow, hang")
	share := flag.Float64("share", 1, "of the calls that fail")
	flag.Parse()
	if *target != "" {
		call(*target, *deadline, *pause, *callers, *streams)
	} else {
		serve(*address, *how, *share)
	}
}

// connections by the address of the caller, so that a handler can break its own.
type connections struct {
	net.Listener
	open sync.Map
}

func (all *connections) Accept() (net.Conn, error) {
	connection, err := all.Listener.Accept()
	if err == nil {
		all.open.Store(connection.RemoteAddr().String(), connection)
	}
	return connection, err
}

func (all *connections) cut(context context.Context) {
	from, _ := peer.FromContext(context)
	if found, ok := all.open.LoadAndDelete(from.Addr.String()); ok {
		connection := found.(*net.TCPConn)
		_ = connection.SetLinger(0)
		_ = connection.Close()
	}
}

func serve(address, how string, share float64) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	all := &connections{Listener: listener}
	answer := func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(&grpc_health_v1.HealthCheckRequest{}); err != nil {
			return err
		}
		way := "good"
		if rand.Float64() < share {
			way = how
		}
		message := &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}
		switch way {
		case "headers":
			return status.Error(codes.Internal, "wrong")
		case "trailers":
			_ = stream.SendMsg(message)
			return status.Error(codes.Internal, "wrong")
		case "early":
			_ = stream.SendMsg(message)
			time.Sleep(20 * time.Millisecond)
			all.cut(stream.Context())
			return nil
		case "slow":
			time.Sleep(800 * time.Millisecond)
		case "hang":
			<-stream.Context().Done()
			return stream.Context().Err()
		}
		return stream.SendMsg(message)
	}
	log.Fatal(grpc.NewServer(grpc.UnknownServiceHandler(answer)).Serve(all))
}

func call(target string, deadline, pause time.Duration, callers int, streams bool) {
	ended, end := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		end()
	}()
	counts, lock, done := map[string]int{}, sync.Mutex{}, sync.WaitGroup{}
	for range callers {
		done.Add(1)
		go func() {
			defer done.Done()
			connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				log.Fatal(err)
			}
			defer func() { _ = connection.Close() }()
			client := grpc_health_v1.NewHealthClient(connection)
			for ended.Err() == nil {
				limited, cancel := context.WithTimeout(context.Background(), deadline)
				err := once(limited, client, streams)
				cancel()
				lock.Lock()
				counts[status.Code(err).String()]++
				lock.Unlock()
				time.Sleep(pause)
			}
		}()
	}
	done.Wait()
	_ = json.NewEncoder(os.Stdout).Encode(counts)
}

func once(context context.Context, client grpc_health_v1.HealthClient, streams bool) error {
	request := &grpc_health_v1.HealthCheckRequest{}
	if !streams {
		_, err := client.Check(context, request)
		return err
	}
	stream, err := client.Watch(context, request)
	for err == nil {
		_, err = stream.Recv()
	}
	if err.Error() == "EOF" {
		return nil
	}
	return err
}
