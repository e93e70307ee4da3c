// Command simulated-proxies stands in for the sidecars of many pods: to istiod each is one more Envoy that asks for its
// configuration and acknowledges it. It carries no requests. It prints one line of JSON for each thing that happens:
//
//	{"connected": 1000}: all have their routes for the first time
//	{"at": 1795824000.123, "proxy": "caller-0007", "weights": {"v1": 90, "v2": 10}}: acknowledged, at in seconds since 1970
//	{"lost": "caller-0007", "why": "…"}: a connection ended that had its routes
//
// It ends when its standard input does.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	http "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	prefix    = "type.googleapis.com/envoy.config."
	clusters  = prefix + "cluster.v3.Cluster"
	endpoints = prefix + "endpoint.v3.ClusterLoadAssignment"
	listeners = prefix + "listener.v3.Listener"
	routes    = prefix + "route.v3.RouteConfiguration"

	// As often as an istiod on few processors takes new connections.
	pause = 40 * time.Millisecond
)

var (
	istiod    = flag.String("istiod", "", "the address of istiod's plain port")
	namespace = flag.String("namespace", "", "that of the pods")
	count     = flag.Int("count", 1000, "how many proxies")
	version   = flag.String("version", "", "the Istio that they say they are of")
	named     = flag.String("route", "", "the name of the route that is reported")
)

// report prints one line at a time.
var report = func() func(any) {
	var one sync.Mutex
	out := json.NewEncoder(os.Stdout)
	return func(event any) {
		one.Lock()
		defer one.Unlock()
		if out.Encode(event) != nil {
			os.Exit(0) // nobody listens any more
		}
	}
}()

type acknowledged struct {
	At      float64           `json:"at"`
	Proxy   string            `json:"proxy"`
	Weights map[string]uint32 `json:"weights"`
}

type stream = grpc.BidiStreamingClient[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse]

// proxy is one Envoy, as far as istiod can tell.
type proxy struct {
	name, address string
	// subscribed has the names that were asked for, of the kinds that are asked for by name.
	subscribed map[string]map[string]bool
	routed     bool
	ready      func()
}

func main() {
	flag.Parse()
	var all sync.WaitGroup
	all.Add(*count)
	go func() {
		all.Wait()
		report(map[string]int{"connected": *count})
	}()
	go func() {
		for number := range *count {
			one := &proxy{
				name:    fmt.Sprintf("caller-%04d", number),
				address: fmt.Sprintf("10.200.%d.%d", number/250, number%250+1),
				ready:   sync.OnceFunc(all.Done),
			}
			go one.live()
			time.Sleep(pause)
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func (p *proxy) live() {
	for {
		err := p.connect()
		if p.routed {
			report(map[string]string{"lost": p.name, "why": fmt.Sprint(err)})
		}
		time.Sleep(time.Second)
	}
}

// connect follows one connection until it ends.
func (p *proxy) connect() error {
	connection, err := grpc.NewClient(
		*istiod, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithReadBufferSize(4096), grpc.WithWriteBufferSize(4096),
	)
	if err != nil {
		return err
	}
	defer connection.Close()
	to, err := discovery.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(context.Background())
	if err != nil {
		return err
	}
	p.subscribed, p.routed = map[string]map[string]bool{endpoints: {}, routes: {}}, false
	for _, kind := range []string{clusters, listeners} {
		if err := to.Send(&discovery.DeltaDiscoveryRequest{Node: p.node(), TypeUrl: kind}); err != nil {
			return err
		}
	}
	for {
		answer, err := to.Recv()
		if err != nil {
			return err
		}
		if err := p.take(to, answer); err != nil {
			return err
		}
	}
}

// take acknowledges an answer, and asks for what it makes necessary.
func (p *proxy) take(to stream, answer *discovery.DeltaDiscoveryResponse) error {
	wanted, split, err := read(answer)
	if err != nil {
		return err
	}
	err = to.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: answer.TypeUrl, ResponseNonce: answer.Nonce})
	if err != nil {
		return err
	}
	if answer.TypeUrl == routes {
		if split != nil {
			report(acknowledged{float64(time.Now().UnixMicro()) / 1e6, p.name, split})
		}
		p.routed = true
		p.ready()
	}
	for kind, names := range wanted {
		if err := p.subscribe(to, kind, names); err != nil {
			return err
		}
	}
	return nil
}

func (p *proxy) subscribe(to stream, kind string, names []string) error {
	var fresh []string
	for _, name := range names {
		if !p.subscribed[kind][name] {
			p.subscribed[kind][name] = true
			fresh = append(fresh, name)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return to.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: kind, ResourceNamesSubscribe: fresh})
}

// read says which other resources the ones in the answer refer to, by kind, and the weights of the named route, by
// subset, if it is there.
func read(answer *discovery.DeltaDiscoveryResponse) (map[string][]string, map[string]uint32, error) {
	wanted, split := map[string][]string{}, map[string]uint32(nil)
	for _, resource := range answer.Resources {
		body := resource.GetResource().GetValue()
		switch answer.TypeUrl {
		case clusters:
			one := &cluster.Cluster{}
			if err := proto.Unmarshal(body, one); err != nil {
				return nil, nil, err
			}
			if one.GetType() == cluster.Cluster_EDS {
				name := one.GetEdsClusterConfig().GetServiceName()
				if name == "" {
					name = one.Name
				}
				wanted[endpoints] = append(wanted[endpoints], name)
			}
		case listeners:
			one := &listener.Listener{}
			if err := proto.Unmarshal(body, one); err != nil {
				return nil, nil, err
			}
			names, err := tables(one)
			if err != nil {
				return nil, nil, err
			}
			wanted[routes] = append(wanted[routes], names...)
		case routes:
			one := &route.RouteConfiguration{}
			if err := proto.Unmarshal(body, one); err != nil {
				return nil, nil, err
			}
			if found := weights(one); found != nil {
				split = found
			}
		}
	}
	return wanted, split, nil
}

// tables has the names of the route tables that a listener uses.
func tables(of *listener.Listener) ([]string, error) {
	var names []string
	for _, chain := range append(of.GetFilterChains(), of.GetDefaultFilterChain()) {
		for _, filter := range chain.GetFilters() {
			config := filter.GetTypedConfig()
			if !strings.HasSuffix(config.GetTypeUrl(), "HttpConnectionManager") {
				continue
			}
			manager := &http.HttpConnectionManager{}
			if err := config.UnmarshalTo(manager); err != nil {
				return nil, err
			}
			if name := manager.GetRds().GetRouteConfigName(); name != "" {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

func weights(table *route.RouteConfiguration) map[string]uint32 {
	for _, host := range table.VirtualHosts {
		for _, rule := range host.Routes {
			if rule.Name != *named {
				continue
			}
			if one := rule.GetRoute().GetCluster(); one != "" {
				return map[string]uint32{subset(one): 100}
			}
			found := map[string]uint32{}
			for _, entry := range rule.GetRoute().GetWeightedClusters().GetClusters() {
				found[subset(entry.Name)] = entry.GetWeight().GetValue()
			}
			return found
		}
	}
	return nil
}

// subset of a cluster by Istio's name for it: outbound|9999|v1|bill-service.istio-demo.svc.cluster.local.
func subset(name string) string {
	if parts := strings.Split(name, "|"); len(parts) == 4 {
		return parts[2]
	}
	return name
}

func (p *proxy) node() *core.Node {
	labels, _ := structpb.NewStruct(map[string]any{
		"app": "caller", "service.istio.io/canonical-name": "caller", "security.istio.io/tlsMode": "istio",
	})
	metadata := map[string]any{
		"CLUSTER_ID": "Kubernetes", "INSTANCE_IPS": p.address, "INTERCEPTION_MODE": "REDIRECT",
		"ISTIO_VERSION": *version, "MESH_ID": "cluster.local", "NAME": p.name, "NAMESPACE": *namespace,
		"SERVICE_ACCOUNT": "default", "WORKLOAD_NAME": "caller",
	}
	made, err := structpb.NewStruct(metadata)
	if err != nil {
		panic(err)
	}
	made.Fields["LABELS"] = structpb.NewStructValue(labels)
	return &core.Node{
		Id:       fmt.Sprintf("sidecar~%s~%s.%s~%s.svc.cluster.local", p.address, p.name, *namespace, *namespace),
		Cluster:  "caller." + *namespace,
		Metadata: made,
	}
}
