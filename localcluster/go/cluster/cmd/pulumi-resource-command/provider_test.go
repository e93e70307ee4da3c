package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	localURN  = "urn:pulumi:test::project::command:local:Command::name"
	remoteURN = "urn:pulumi:test::project::command:remote:Command::name"
	copyURN   = "urn:pulumi:test::project::command:remote:CopyToRemote::name"
	unknown   = plugin.UnknownStringValue
)

type (
	object = map[string]any
	list   = []any
)

func properties(t *testing.T, values object) *structpb.Struct {
	t.Helper()
	converted, err := structpb.NewStruct(values)
	if err != nil {
		t.Fatal(err)
	}
	return converted
}

func secret(value any) object { return object{resource.SigKey: resource.SecretSig, "value": value} }

// engine keeps what is logged.
type engine struct {
	pulumirpc.EngineClient
	mutex  sync.Mutex
	logged []*pulumirpc.LogRequest
}

func (e *engine) Log(
	_ context.Context, req *pulumirpc.LogRequest, _ ...grpc.CallOption,
) (*emptypb.Empty, error) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.logged = append(e.logged, req)
	return &emptypb.Empty{}, nil
}

func (e *engine) messages() []string {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	var messages []string
	for _, req := range e.logged {
		messages = append(messages, req.GetMessage())
	}
	return messages
}

func start(t *testing.T) (*provider, *engine) {
	e := &engine{}
	return newProvider(t.Context(), e), e
}

func create(t *testing.T, p *provider, urn string, inputs object) (*structpb.Struct, error) {
	t.Helper()
	response, err := p.Create(t.Context(), &pulumirpc.CreateRequest{Urn: urn, Properties: properties(t, inputs)})
	if err == nil && !strings.HasPrefix(response.GetId(), "name") {
		t.Errorf("identifier %q", response.GetId())
	}
	return response.GetProperties(), err
}

func update(t *testing.T, p *provider, urn string, old *structpb.Struct, inputs object) (*structpb.Struct, error) {
	t.Helper()
	response, err := p.Update(t.Context(), &pulumirpc.UpdateRequest{Urn: urn, Olds: old, News: properties(t, inputs)})
	return response.GetProperties(), err
}

func expect(t *testing.T, what string, state *structpb.Struct, err error, stdout, stderr string) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	fields := state.GetFields()
	if got := fields["stdout"].GetStringValue(); got != stdout {
		t.Errorf("%s: stdout %q, not %q", what, got, stdout)
	}
	if got := fields["stderr"].GetStringValue(); got != stderr {
		t.Errorf("%s: stderr %q, not %q", what, got, stderr)
	}
}

func TestDiff(t *testing.T) {
	p, _ := start(t)
	olds := object{
		"create": "a", "delete": "d", "environment": object{"A": "1"}, "triggers": list{"x", 1.0}, "stdin": secret("s"),
	}
	for name, test := range map[string]struct {
		change   object
		diffs    []string
		replaces []string
	}{
		"nothing":        {},
		"create":         {object{"create": "b"}, []string{"create"}, nil},
		"delete":         {object{"delete": "b"}, []string{"delete"}, nil},
		"update added":   {object{"update": "b"}, []string{"update"}, nil},
		"environment":    {object{"environment": object{"A": "2"}}, []string{"environment"}, nil},
		"same secret":    {object{"stdin": secret("s")}, nil, nil},
		"other secret":   {object{"stdin": secret("t")}, []string{"stdin"}, nil},
		"unknown":        {object{"create": unknown}, []string{"create"}, nil},
		"null":           {object{"update": nil}, nil, nil},
		"one trigger":    {object{"triggers": list{"y", 1.0}}, []string{"triggers"}, []string{"triggers"}},
		"trigger added":  {object{"triggers": list{"x", 1.0, true}}, []string{"triggers"}, []string{"triggers"}},
		"all triggers":   {object{"triggers": nil}, []string{"triggers"}, []string{"triggers"}},
		"trigger, other": {object{"triggers": nil, "create": "b"}, []string{"create", "triggers"}, []string{"triggers"}},
	} {
		t.Run(name, func(t *testing.T) {
			news := properties(t, olds)
			for key, value := range properties(t, test.change).GetFields() {
				news.Fields[key] = value
			}
			diff, err := p.Diff(t.Context(), &pulumirpc.DiffRequest{
				Urn: localURN, OldInputs: properties(t, olds), News: news,
			})
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(diff.Diffs)
			changed := diff.GetChanges() == pulumirpc.DiffResponse_DIFF_SOME
			if changed != (test.diffs != nil) || !slices.Equal(diff.GetDiffs(), test.diffs) {
				t.Errorf("changed %v: %v, not %v", changed, diff.GetDiffs(), test.diffs)
			}
			if !slices.Equal(diff.GetReplaces(), test.replaces) {
				t.Errorf("replaces %v, not %v", diff.GetReplaces(), test.replaces)
			}
			for path, change := range diff.GetDetailedDiff() {
				if strings.HasSuffix(change.GetKind().String(), "_REPLACE") != strings.HasPrefix(path, "triggers") {
					t.Errorf("%s is %s", path, change.GetKind())
				}
			}
		})
	}
}

func TestLifecycle(t *testing.T) {
	p, _ := start(t)
	dir := t.TempDir()
	inputs := object{
		"create":      "echo made; echo complaint >&2; cat; pwd",
		"delete":      `echo "$PULUMI_COMMAND_STDOUT" > deleted`,
		"dir":         dir,
		"stdin":       "given\n",
		"environment": object{"NAME": "value"},
	}
	state, err := create(t, p, localURN, inputs)
	expect(t, "create", state, err, "made\ngiven\n"+dir, "complaint")

	inputs["create"] = `echo "$NAME after ${PULUMI_COMMAND_STDERR}"`
	state, err = update(t, p, localURN, state, inputs)
	expect(t, "create again for want of an update command", state, err, "value after complaint", "")

	inputs["update"] = `echo "$PULUMI_COMMAND_STDOUT, updated"`
	state, err = update(t, p, localURN, state, inputs)
	expect(t, "update", state, err, "value after complaint, updated", "")

	inputs["addPreviousOutputInEnv"] = false
	state, err = update(t, p, localURN, state, inputs)
	expect(t, "without previous output", state, err, ", updated", "")

	if _, err := update(t, p, localURN, state, object{"update": "echo why >&2; exit 3"}); err == nil ||
		!strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "why") {
		t.Errorf("failed update: %v", err)
	}
	kept, err := update(t, p, localURN, state, object{"delete": "true"})
	expect(t, "no command to run", kept, err, ", updated", "")

	delete(inputs, "addPreviousOutputInEnv")
	state, err = update(t, p, localURN, state, inputs)
	expect(t, "update", state, err, ", updated, updated", "")
	read, err := p.Read(t.Context(), &pulumirpc.ReadRequest{Urn: localURN, Id: "name1", Properties: state})
	if err != nil || read.GetId() != "name1" || read.GetProperties() != state {
		t.Errorf("read: %v, %v", read, err)
	}
	if _, err := p.Delete(t.Context(), &pulumirpc.DeleteRequest{Urn: localURN, Properties: state}); err != nil {
		t.Errorf("delete: %v", err)
	}
	if left, err := os.ReadFile(filepath.Join(dir, "deleted")); string(left) != ", updated, updated\n" {
		t.Errorf("the delete command saw %q (%v)", left, err)
	}
	state.Fields["delete"] = structpb.NewStringValue("exit 4")
	if _, err := p.Delete(t.Context(), &pulumirpc.DeleteRequest{Urn: localURN, Properties: state}); err == nil ||
		!strings.Contains(err.Error(), "exit status 4") {
		t.Errorf("failed delete: %v", err)
	}
}

func TestCreate(t *testing.T) {
	p, _ := start(t)
	state, err := create(t, p, localURN, object{"delete": "true"})
	expect(t, "no create command", state, err, "", "")
	state, err = create(t, p, localURN, object{"create": "print(6*7)", "interpreter": list{"echo", "-n", "to run:"}})
	expect(t, "interpreter", state, err, "to run: print(6*7)", "")
	state, err = create(t, p, localURN, object{"create": "printf 'a\n\n'", "interpreter": list{}})
	expect(t, "one line feed cut", state, err, "a\n", "")
	for what, inputs := range map[string]object{
		"failure":   {"create": "echo printed; echo why >&2; exit 3"},
		"directory": {"create": "true", "dir": "/no/such/directory"},
		"program":   {"create": "true", "interpreter": list{"no-such-interpreter"}},
	} {
		state, err := create(t, p, localURN, inputs)
		if err == nil || state != nil {
			t.Errorf("%s: %v, %v", what, state, err)
		} else if what == "failure" {
			for _, part := range []string{"exit status 3", "printed\n", "why\n"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("no %q in the error: %v", part, err)
				}
			}
		}
	}
}

func TestSecrets(t *testing.T) {
	p, _ := start(t)
	state, err := create(t, p, localURN, object{
		"create":      secret(`echo "${#PASSWORD} $(cat)"`),
		"stdin":       secret("in"),
		"environment": object{"PASSWORD": secret("hidden")},
	})
	expect(t, "secrets are plain for the command", state, err, "6 in", "")
	environment := state.GetFields()["environment"].GetStructValue().GetFields()
	for what, value := range map[string]*structpb.Value{
		"create": state.GetFields()["create"], "stdin": state.GetFields()["stdin"], "PASSWORD": environment["PASSWORD"],
	} {
		if plain(value) == value {
			t.Errorf("%s is no secret in the state", what)
		}
	}
}

func TestPreview(t *testing.T) {
	p, _ := start(t)
	witness := filepath.Join(t.TempDir(), "witness")
	inputs := properties(t, object{
		"create": "touch " + witness, "environment": object{"A": unknown}, "interpreter": list{"sh", unknown},
	})
	created, err := p.Create(t.Context(), &pulumirpc.CreateRequest{Urn: localURN, Properties: inputs, Preview: true})
	expect(t, "create", created.GetProperties(), err, unknown, unknown)
	updated, err := p.Update(t.Context(), &pulumirpc.UpdateRequest{
		Urn: localURN, Olds: properties(t, object{"create": "a", "stdout": "o"}), News: inputs, Preview: true,
	})
	expect(t, "update", updated.GetProperties(), err, unknown, unknown)
	if _, err := os.Stat(witness); err == nil || created.GetId() != "" {
		t.Errorf("the preview ran the command or gave an identifier %q", created.GetId())
	}
}

func TestCheck(t *testing.T) {
	p, _ := start(t)
	host := object{"host": "h"}
	for name, test := range map[string]struct {
		urn    string
		inputs object
		failed []string
	}{
		"local":              {localURN, object{"create": "a", "logging": "none", "triggers": list{1.0, host}}, nil},
		"unknown":            {localURN, object{"create": unknown, "environment": unknown, "interpreter": unknown}, nil},
		"secret":             {localURN, object{"create": secret("a"), "environment": secret(unknown)}, nil},
		"number for string":  {localURN, object{"create": 1.0}, []string{"create"}},
		"number in variable": {localURN, object{"environment": object{"A": 1.0}}, []string{"environment"}},
		"logging":            {localURN, object{"logging": "all"}, []string{"logging"}},
		"assets": {
			localURN, object{"assetPaths": list{"*"}, "archivePaths": list{}}, []string{"archivePaths", "assetPaths"},
		},
		"remote":             {remoteURN, object{"connection": secret(object{"host": unknown, "proxy": host})}, nil},
		"unknown connection": {remoteURN, object{"connection": unknown}, nil},
		"no connection":      {remoteURN, object{"create": "a"}, []string{"connection"}},
		"no host": {
			remoteURN, object{"connection": object{"proxy": object{}}}, []string{"connection.host", "connection.proxy.host"},
		},
		"port": {remoteURN, object{"connection": object{"host": "h", "port": "22"}}, []string{"connection.port"}},
	} {
		t.Run(name, func(t *testing.T) {
			response, err := p.Check(t.Context(), &pulumirpc.CheckRequest{
				Urn: test.urn, News: properties(t, test.inputs),
			})
			if err != nil {
				t.Fatal(err)
			}
			var failed []string
			for _, failure := range response.GetFailures() {
				failed = append(failed, failure.GetProperty())
			}
			if !slices.Equal(failed, test.failed) {
				t.Errorf("failures %v, not %v", response.GetFailures(), test.failed)
			}
			if name != "remote" {
				return
			}
			sealed := response.GetInputs().GetFields()["connection"]
			to := plain(sealed)
			if to == sealed {
				t.Error("the connection is no secret")
			}
			for _, to := range []*structpb.Value{to, to.GetStructValue().GetFields()["proxy"]} {
				fields := to.GetStructValue().GetFields()
				if fields["port"].GetNumberValue() != 22 || fields["user"].GetStringValue() != "root" ||
					fields["dialErrorLimit"].GetNumberValue() != 10 || fields["perDialTimeout"].GetNumberValue() != 15 {
					t.Errorf("defaults: %v", to)
				}
			}
		})
	}
}

func TestLogging(t *testing.T) {
	for logging, want := range map[any][]string{
		nil:               {"end", "err", "out"},
		"stdoutAndStderr": {"end", "err", "out"},
		"stdout":          {"end", "out"},
		"stderr":          {"err"},
		"none":            nil,
	} {
		p, e := start(t)
		state, err := create(t, p, localURN, object{"create": "echo out; echo err >&2; printf end", "logging": logging})
		expect(t, "logging", state, err, "out\nend", "err")
		messages := e.messages()
		slices.Sort(messages)
		if !slices.Equal(messages, want) {
			t.Errorf("logging %v: %v, not %v", logging, messages, want)
		}
		for _, req := range e.logged {
			if !req.GetEphemeral() || req.GetSeverity() != pulumirpc.LogSeverity_INFO || req.GetUrn() != localURN {
				t.Errorf("logged as %v", req)
			}
		}
	}
}

func TestCancel(t *testing.T) {
	p, e := start(t)
	failed := make(chan error)
	go func() {
		_, err := create(t, p, localURN, object{"create": "sleep 1000 & echo $!; wait"})
		failed <- err
	}()
	for len(e.messages()) == 0 {
		time.Sleep(5 * time.Millisecond)
	}
	child, err := strconv.Atoi(e.messages()[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Cancel(t.Context(), &emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "cancelled") {
		t.Errorf("error: %v", err)
	}
	lives := func() bool { // and is no zombie, which it stays as long as nobody waits for it
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(child) + "/stat")
		return err == nil && !strings.Contains(string(stat), ") Z ")
	}
	for deadline := time.Now().Add(5 * time.Second); lives(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the child of the command lives on")
		}
	}
	if _, err := create(t, p, localURN, object{"create": "sleep 1000"}); err == nil {
		t.Error("a command ran after the cancellation")
	}
}

func TestRefusals(t *testing.T) {
	p, _ := start(t)
	_, check := p.Check(t.Context(), &pulumirpc.CheckRequest{Urn: copyURN})
	_, create := p.Create(t.Context(), &pulumirpc.CreateRequest{Urn: copyURN})
	_, invoke := p.Invoke(t.Context(), &pulumirpc.InvokeRequest{Tok: "command:local:run"})
	for _, err := range []error{check, create, invoke} {
		if err == nil || !strings.Contains(err.Error(), "is not in this stand-in for pulumi-command") {
			t.Errorf("error: %v", err)
		}
	}
}
