package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// command holds the inputs of both resources and, as outputs of the last run, what that run printed.
type command struct {
	Create                 *string           `json:"create"`
	Update                 *string           `json:"update"`
	Delete                 *string           `json:"delete"`
	Environment            map[string]string `json:"environment"`
	Stdin                  string            `json:"stdin"`
	Logging                string            `json:"logging"`
	AddPreviousOutputInEnv *bool             `json:"addPreviousOutputInEnv"`
	Dir                    string            `json:"dir"`         // local only
	Interpreter            []string          `json:"interpreter"` // local only
	Connection             *connection       `json:"connection"`  // remote only

	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
}

// decode reads a command from inputs or state. Secrets are read as their values, unknown values as absent.
func decode(properties *structpb.Struct) (*command, error) {
	values, err := plugin.UnmarshalProperties(properties, plugin.MarshalOptions{KeepUnknowns: true, SkipNulls: true})
	if err != nil {
		return nil, err
	}
	delete(values, "triggers") // of any type, and only ever compared
	absent := func(value resource.PropertyValue) (any, bool) { return nil, value.IsComputed() }
	encoded, err := json.Marshal(values.MapRepl(nil, absent))
	if err != nil {
		return nil, err
	}
	c := &command{}
	return c, json.Unmarshal(encoded, c)
}

// previousOutput is what the last run printed, as variables for the next one.
func (c *command) previousOutput() map[string]string {
	if c.AddPreviousOutputInEnv != nil && !*c.AddPreviousOutputInEnv {
		return nil
	}
	variables := map[string]string{"PULUMI_COMMAND_STDOUT": c.Stdout, "PULUMI_COMMAND_STDERR": c.Stderr}
	maps.DeleteFunc(variables, func(_, value string) bool { return value == "" })
	return variables
}

// A runner runs line, a command of c, until it ends or ctx is done.
type runner func(ctx context.Context, c *command, line string, out *output) error

var runners = map[string]runner{"command:local:Command": runLocal, "command:remote:Command": runRemote}

func refuse(token string) error {
	return status.Errorf(codes.Unimplemented, "%s is not in this stand-in for pulumi-command, which has only %s",
		token, strings.Join(slices.Sorted(maps.Keys(runners)), " and "))
}

func runnerOf(urn string) (runner, error) {
	token := string(resource.URN(urn).Type())
	run, known := runners[token]
	if !known {
		return nil, refuse(token)
	}
	return run, nil
}

type provider struct {
	pulumirpc.UnimplementedResourceProviderServer
	engine    pulumirpc.EngineClient
	cancelled context.Context // done from the engine's Cancel on
	cancel    context.CancelFunc
}

func newProvider(ctx context.Context, engine pulumirpc.EngineClient) *provider {
	p := &provider{engine: engine}
	p.cancelled, p.cancel = context.WithCancel(ctx)
	return p
}

// run runs line and takes what it printed into c.
func (p *provider) run(ctx context.Context, run runner, urn string, c *command, line *string) error {
	if line == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.cancelled, cancel)()
	out := newOutput(c.Logging, func(severity pulumirpc.LogSeverity, message string) {
		_, _ = p.engine.Log(ctx, &pulumirpc.LogRequest{ // a lost log line is no reason to fail
			Urn:      urn,
			Severity: severity,
			Message:  strings.ToValidUTF8(message, "\uFFFD"),
			// Information shows beside the resource while it is worked on, and is not kept.
			Ephemeral: severity == pulumirpc.LogSeverity_INFO,
		})
	})
	err := run(ctx, c, *line, out)
	out.flush()
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("cancelled: %w", err)
	}
	if err == nil {
		c.Stdout, c.Stderr = out.stdout.text(), out.stderr.text()
	}
	return err
}

func (p *provider) Check(_ context.Context, req *pulumirpc.CheckRequest) (*pulumirpc.CheckResponse, error) {
	if _, err := runnerOf(req.GetUrn()); err != nil {
		return nil, err
	}
	var failures []*pulumirpc.CheckFailure
	fail := func(property, format string, arguments ...any) {
		failures = append(failures, &pulumirpc.CheckFailure{
			Property: property, Reason: fmt.Sprintf(format, arguments...),
		})
	}
	c, err := decode(req.GetNews())
	var mistyped *json.UnmarshalTypeError
	if errors.As(err, &mistyped) {
		fail(mistyped.Field, "it has a %s where a %s belongs", mistyped.Value, mistyped.Type)
	} else if err != nil {
		return nil, err
	} else if !slices.Contains([]string{"", "none", "stdout", "stderr", "stdoutAndStderr"}, c.Logging) {
		fail("logging", "it is %q, and has to be none, stdout, stderr or stdoutAndStderr", c.Logging)
	}
	fields := req.GetNews().GetFields()
	for _, unsupported := range []string{"archivePaths", "assetPaths"} {
		if _, set := fields[unsupported]; set {
			fail(unsupported, "it is not in this stand-in for pulumi-command")
		}
	}
	if resource.URN(req.GetUrn()).Type() == "command:remote:Command" {
		if to := plain(fields["connection"]); to == nil {
			fail("connection", "it is missing")
		} else {
			checkConnection(to, "connection", fail)
			fields["connection"] = structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
				resource.SigKey: structpb.NewStringValue(resource.SecretSig), "value": to,
			}})
		}
	}
	return &pulumirpc.CheckResponse{Inputs: req.GetNews(), Failures: failures}, nil
}

// plain is value without the mark of a secret.
func plain(value *structpb.Value) *structpb.Value {
	fields := value.GetStructValue().GetFields()
	if fields[resource.SigKey].GetStringValue() == resource.SecretSig {
		return plain(fields["value"])
	}
	return value
}

// Diff has an update for every change of an input, but a replacement for one of triggers.
func (p *provider) Diff(_ context.Context, req *pulumirpc.DiffRequest) (*pulumirpc.DiffResponse, error) {
	if _, err := runnerOf(req.GetUrn()); err != nil {
		return nil, err
	}
	options := plugin.MarshalOptions{KeepUnknowns: true, KeepSecrets: true, KeepResources: true, SkipNulls: true}
	olds, err := plugin.UnmarshalProperties(req.GetOldInputs(), options)
	if err != nil {
		return nil, err
	}
	news, err := plugin.UnmarshalProperties(req.GetNews(), options)
	if err != nil {
		return nil, err
	}
	changes := plugin.NewDetailedDiffFromObjectDiff(olds.Diff(news), true)
	if len(changes) == 0 {
		return &pulumirpc.DiffResponse{Changes: pulumirpc.DiffResponse_DIFF_NONE}, nil
	}
	response := &pulumirpc.DiffResponse{
		Changes:         pulumirpc.DiffResponse_DIFF_SOME,
		HasDetailedDiff: true,
		DetailedDiff:    map[string]*pulumirpc.PropertyDiff{},
	}
	for path, change := range changes {
		input := path[:strings.IndexAny(path+".", ".[")]
		if input == "triggers" {
			change.Kind = change.Kind.AsReplace()
			response.Replaces = []string{input}
		}
		if !slices.Contains(response.Diffs, input) {
			response.Diffs = append(response.Diffs, input)
		}
		response.DetailedDiff[path] = &pulumirpc.PropertyDiff{
			Kind: pulumirpc.PropertyDiff_Kind(change.Kind), InputDiff: true,
		}
	}
	return response, nil
}

func (p *provider) Create(ctx context.Context, req *pulumirpc.CreateRequest) (*pulumirpc.CreateResponse, error) {
	properties, err := p.apply(ctx, req.GetUrn(), req.GetProperties(), nil, req.GetPreview())
	if err != nil || req.GetPreview() {
		return &pulumirpc.CreateResponse{Properties: properties}, err
	}
	id, err := resource.NewUniqueHex(resource.URN(req.GetUrn()).Name(), 8, 0)
	return &pulumirpc.CreateResponse{Id: id, Properties: properties}, err
}

func (p *provider) Update(ctx context.Context, req *pulumirpc.UpdateRequest) (*pulumirpc.UpdateResponse, error) {
	properties, err := p.apply(ctx, req.GetUrn(), req.GetNews(), req.GetOlds(), req.GetPreview())
	return &pulumirpc.UpdateResponse{Properties: properties}, err
}

// apply runs the create command or, where there is an old state, the update command; without an update command, the
// create command again, whichever input has changed. It returns the new state: the inputs as they are, secrets and
// all, and what the command printed, which a preview does not know.
func (p *provider) apply(
	ctx context.Context, urn string, inputs, old *structpb.Struct, preview bool,
) (*structpb.Struct, error) {
	run, err := runnerOf(urn)
	if err != nil {
		return nil, err
	}
	c, err := decode(inputs)
	if err != nil {
		return nil, err
	}
	line := c.Create
	if old != nil {
		before, err := decode(old)
		if err != nil {
			return nil, err
		}
		c.Stdout, c.Stderr = before.Stdout, before.Stderr
		if c.Update != nil {
			line = c.Update
		}
	}
	if preview {
		c.Stdout, c.Stderr = plugin.UnknownStringValue, plugin.UnknownStringValue
	} else if err := p.run(ctx, run, urn, c, line); err != nil {
		return nil, err
	}
	fields := map[string]*structpb.Value{}
	maps.Copy(fields, inputs.GetFields())
	fields["stdout"], fields["stderr"] = structpb.NewStringValue(c.Stdout), structpb.NewStringValue(c.Stderr)
	return &structpb.Struct{Fields: fields}, nil
}

func (p *provider) Delete(ctx context.Context, req *pulumirpc.DeleteRequest) (*emptypb.Empty, error) {
	run, err := runnerOf(req.GetUrn())
	if err != nil {
		return nil, err
	}
	c, err := decode(req.GetProperties())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, p.run(ctx, run, req.GetUrn(), c, c.Delete)
}

// Read returns what it is given: nothing outside tells what a command has left behind.
func (p *provider) Read(_ context.Context, req *pulumirpc.ReadRequest) (*pulumirpc.ReadResponse, error) {
	if _, err := runnerOf(req.GetUrn()); err != nil {
		return nil, err
	}
	return &pulumirpc.ReadResponse{Id: req.GetId(), Properties: req.GetProperties(), Inputs: req.GetInputs()}, nil
}

func (p *provider) Invoke(_ context.Context, req *pulumirpc.InvokeRequest) (*pulumirpc.InvokeResponse, error) {
	return nil, refuse(req.GetTok())
}

func (p *provider) Cancel(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
	p.cancel()
	return &emptypb.Empty{}, nil
}

func (p *provider) Configure(
	context.Context, *pulumirpc.ConfigureRequest,
) (*pulumirpc.ConfigureResponse, error) {
	return &pulumirpc.ConfigureResponse{AcceptSecrets: true, AcceptResources: true, SupportsPreview: true}, nil
}

func (p *provider) GetPluginInfo(context.Context, *emptypb.Empty) (*pulumirpc.PluginInfo, error) {
	return &pulumirpc.PluginInfo{Version: version}, nil
}

func (p *provider) GetSchema(
	context.Context, *pulumirpc.GetSchemaRequest,
) (*pulumirpc.GetSchemaResponse, error) {
	schema, err := json.Marshal(map[string]string{
		"name": "command", "displayName": "Command (stand-in)", "version": version, "description": description,
	})
	return &pulumirpc.GetSchemaResponse{Schema: string(schema)}, err
}
