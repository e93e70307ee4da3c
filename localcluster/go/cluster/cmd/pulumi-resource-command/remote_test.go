package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"io"
	"maps"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/emptypb"
)

func key(t *testing.T) (signer ssh.Signer, private string) {
	t.Helper()
	_, generated, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if signer, err = ssh.NewSignerFromKey(generated); err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(generated, "", []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	return signer, string(pem.EncodeToMemory(block))
}

// server is an SSH server on the loopback that runs commands with /bin/sh and forwards connections.
type server struct {
	config  *ssh.ServerConfig
	hostKey string
	port    int
	dials   atomic.Int32 // connections taken
	refused string       // variables that it does not take
	running chan *exec.Cmd
}

func listen(t *testing.T, authorized ssh.PublicKey) *server {
	t.Helper()
	host, _ := key(t)
	s := &server{hostKey: string(ssh.MarshalAuthorizedKey(host.PublicKey())), running: make(chan *exec.Cmd, 1)}
	s.config = &ssh.ServerConfig{
		PasswordCallback: func(user ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			if user.User() == "root" && string(password) == "open" {
				return nil, nil
			}
			return nil, errors.New("wrong password")
		},
		PublicKeyCallback: func(_ ssh.ConnMetadata, offered ssh.PublicKey) (*ssh.Permissions, error) {
			if authorized != nil && bytes.Equal(offered.Marshal(), authorized.Marshal()) {
				return nil, nil
			}
			return nil, errors.New("wrong key")
		},
	}
	s.config.AddHostKey(host)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	s.port = listener.Addr().(*net.TCPAddr).Port
	go func() {
		for {
			wire, err := listener.Accept()
			if err != nil {
				return
			}
			s.dials.Add(1)
			go s.serve(wire)
		}
	}()
	return s
}

func (s *server) connection(more object) object {
	to := object{
		"host": "127.0.0.1", "port": s.port, "user": "root", "password": "open", "dialErrorLimit": 0, "perDialTimeout": 5,
	}
	maps.Copy(to, more)
	return to
}

func (s *server) serve(wire net.Conn) {
	_, channels, requests, err := ssh.NewServerConn(wire, s.config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		if offered.ChannelType() == "direct-tcpip" {
			go s.forward(offered)
			continue
		}
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		go s.session(channel, requests)
	}
}

func (s *server) forward(offered ssh.NewChannel) {
	var target struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	_ = ssh.Unmarshal(offered.ExtraData(), &target)
	wire, err := net.Dial("tcp", net.JoinHostPort(target.Host, strconv.Itoa(int(target.Port))))
	if err != nil {
		_ = offered.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	channel, requests, err := offered.Accept()
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	go func() { _, _ = io.Copy(channel, wire) }()
	_, _ = io.Copy(wire, channel)
}

func (s *server) session(channel ssh.Channel, requests <-chan *ssh.Request) {
	var process *exec.Cmd
	var environment []string
	for request := range requests {
		switch request.Type {
		case "env":
			var variable struct{ Name, Value string }
			_ = ssh.Unmarshal(request.Payload, &variable)
			taken := !strings.Contains(s.refused, variable.Name)
			if taken {
				environment = append(environment, variable.Name+"="+variable.Value)
			}
			_ = request.Reply(taken, nil)
		case "exec":
			var line struct{ Line string }
			_ = ssh.Unmarshal(request.Payload, &line)
			process = exec.Command("/bin/sh", "-c", line.Line)
			process.Env = environment
			process.Stdin, process.Stdout, process.Stderr = channel, channel, channel.Stderr()
			_ = request.Reply(process.Start() == nil, nil)
			s.running <- process
			go func() {
				_ = process.Wait()
				<-s.running
				exit := struct{ Status uint32 }{uint32(process.ProcessState.ExitCode())}
				_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(&exit))
				_ = channel.Close()
			}()
		case "signal":
			_ = process.Process.Kill()
		}
	}
}

func TestRemote(t *testing.T) {
	s := listen(t, nil)
	p, e := start(t)
	inputs := object{
		"connection":  secret(s.connection(object{"hostKey": s.hostKey})),
		"create":      `printf '%s %s\n' "$NAME" "$(cat)"; echo complaint >&2`,
		"delete":      `echo "$PULUMI_COMMAND_STDOUT"; exit 7`,
		"stdin":       "given",
		"environment": object{"NAME": "value"},
	}
	state, err := create(t, p, remoteURN, inputs)
	expect(t, "create", state, err, "value given", "complaint")
	if messages := e.messages(); !slices.Contains(messages, "value given") || !slices.Contains(messages, "complaint") {
		t.Errorf("logged: %v", messages)
	}
	inputs["update"] = `echo "$PULUMI_COMMAND_STDOUT, $PULUMI_COMMAND_STDERR"`
	state, err = update(t, p, remoteURN, state, inputs)
	expect(t, "update", state, err, "value given, complaint", "")
	_, err = p.Delete(t.Context(), &pulumirpc.DeleteRequest{Urn: remoteURN, Properties: state})
	if err == nil || !strings.Contains(err.Error(), "exited with status 7") ||
		!strings.Contains(err.Error(), "value given, complaint") {
		t.Errorf("failed delete: %v", err)
	}
	_, err = create(t, p, remoteURN, object{"connection": s.connection(nil), "create": "echo why >&2; exit 3"})
	if err == nil || !strings.Contains(err.Error(), "exited with status 3") || !strings.Contains(err.Error(), "why") {
		t.Errorf("failed create: %v", err)
	}
}

func TestRemoteVariablesRefused(t *testing.T) {
	s := listen(t, nil)
	s.refused = "NAME PULUMI_COMMAND_STDOUT"
	p, e := start(t)
	inputs := object{"connection": s.connection(nil), "create": "echo x$PULUMI_COMMAND_STDOUT"}
	state, err := create(t, p, remoteURN, inputs)
	expect(t, "create", state, err, "x", "")
	state, err = update(t, p, remoteURN, state, inputs)
	expect(t, "without the previous output", state, err, "x", "")
	if !slices.ContainsFunc(e.logged, func(req *pulumirpc.LogRequest) bool {
		return req.GetSeverity() == pulumirpc.LogSeverity_WARNING && strings.Contains(req.GetMessage(), "AcceptEnv")
	}) {
		t.Error("no warning")
	}
	inputs["environment"] = object{"NAME": "value"}
	if _, err := update(t, p, remoteURN, state, inputs); err == nil || !strings.Contains(err.Error(), "NAME") {
		t.Errorf("error: %v", err)
	}
}

func TestLogin(t *testing.T) {
	user, private := key(t)
	stranger, _ := key(t)
	s := listen(t, user.PublicKey())
	bastion := listen(t, nil)
	keyed := object{"password": "", "privateKey": private, "privateKeyPassword": "passphrase"}
	for name, test := range map[string]struct {
		to    object
		error string
	}{
		"password":         {s.connection(nil), ""},
		"key":              {s.connection(keyed), ""},
		"any host key":     {s.connection(object{"hostKey": nil}), ""},
		"right host key":   {s.connection(object{"hostKey": s.hostKey}), ""},
		"wrong host key":   {s.connection(object{"hostKey": bastion.hostKey}), "host key mismatch"},
		"no host key":      {s.connection(object{"hostKey": "none"}), "the host key of 127.0.0.1"},
		"wrong password":   {s.connection(object{"password": "shut"}), "unable to authenticate"},
		"locked key":       {s.connection(object{"privateKey": private}), "the private key for 127.0.0.1"},
		"no agent":         {s.connection(object{"agentSocketPath": "/no/such/socket"}), "the SSH agent"},
		"proxy":            {s.connection(object{"proxy": bastion.connection(nil)}), ""},
		"proxy, other key": {s.connection(object{"proxy": bastion.connection(object{"hostKey": s.hostKey})}), "proxy: "},
		"stranger's key": {
			s.connection(object{"hostKey": string(ssh.MarshalAuthorizedKey(stranger.PublicKey()))}), "host key mismatch",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := start(t)
			state, err := create(t, p, remoteURN, object{"connection": test.to, "create": "echo in"})
			if test.error == "" {
				expect(t, name, state, err, "in", "")
			} else if err == nil || !strings.Contains(err.Error(), test.error) {
				t.Errorf("error: %v", err)
			}
		})
	}
	if bastion.dials.Load() != 2 {
		t.Errorf("the bastion had %d connections", bastion.dials.Load())
	}
}

func TestDialLimits(t *testing.T) {
	s := listen(t, nil)
	p, e := start(t)
	_, err := create(t, p, remoteURN, object{
		"connection": s.connection(object{"password": "shut", "dialErrorLimit": 2}), "create": "true",
	})
	if dials := s.dials.Load(); dials != 3 || err == nil || !strings.Contains(err.Error(), "3 attempts") {
		t.Errorf("%d dials: %v", dials, err)
	}
	if logged := e.messages(); len(logged) != 2 {
		t.Errorf("logged: %v", logged)
	}

	// A server that takes the connection and says nothing.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	began := time.Now()
	_, err = create(t, p, remoteURN, object{"create": "true", "connection": s.connection(object{
		"port": silent.Addr().(*net.TCPAddr).Port, "perDialTimeout": 1,
	})})
	if took := time.Since(began); err == nil || took < 900*time.Millisecond || took > 3*time.Second {
		t.Errorf("after %s: %v", took, err)
	}

	// Without a limit, only a cancellation ends the attempts.
	failed := make(chan error)
	go func() {
		_, err := create(t, p, remoteURN, object{
			"connection": s.connection(object{"password": "shut", "dialErrorLimit": -1}), "create": "true",
		})
		failed <- err
	}()
	for s.dials.Load() < 6 {
		time.Sleep(5 * time.Millisecond)
	}
	_, _ = p.Cancel(t.Context(), &emptypb.Empty{})
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "cancelled") {
		t.Errorf("error: %v", err)
	}
}

func TestRemoteCancel(t *testing.T) {
	s := listen(t, nil)
	p, e := start(t)
	failed := make(chan error)
	go func() {
		_, err := create(t, p, remoteURN, object{"connection": s.connection(nil), "create": "echo on; exec sleep 1000"})
		failed <- err
	}()
	for !slices.Contains(e.messages(), "on") {
		time.Sleep(5 * time.Millisecond)
	}
	_, _ = p.Cancel(t.Context(), &emptypb.Empty{})
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "cancelled") {
		t.Errorf("error: %v", err)
	}
	for deadline := time.Now().Add(5 * time.Second); len(s.running) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the command lives on")
		}
	}
}
