package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/retry"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"google.golang.org/protobuf/types/known/structpb"
)

// connection says how to reach a host over SSH, through the host Proxy where there is one.
type connection struct {
	Host               string      `json:"host"`
	Port               float64     `json:"port"`
	User               string      `json:"user"`
	Password           string      `json:"password"`
	PrivateKey         string      `json:"privateKey"`
	PrivateKeyPassword string      `json:"privateKeyPassword"`
	AgentSocketPath    string      `json:"agentSocketPath"`
	HostKey            string      `json:"hostKey"` // a public key as OpenSSH writes it; any host key will do without
	DialErrorLimit     int         `json:"dialErrorLimit"`
	PerDialTimeout     int         `json:"perDialTimeout"` // in seconds, 0 for none
	Proxy              *connection `json:"proxy"`
}

var connectionDefaults = map[string]any{"port": 22, "user": "root", "dialErrorLimit": 10, "perDialTimeout": 15}

// checkConnection puts the defaults into a connection, as far as it is known already.
func checkConnection(to *structpb.Value, path string, fail func(property, format string, arguments ...any)) {
	fields := plain(to).GetStructValue().GetFields()
	if fields == nil {
		return
	}
	if _, set := fields["host"]; !set {
		fail(path+".host", "it is missing")
	}
	for name, value := range connectionDefaults {
		if _, set := fields[name]; !set {
			fields[name], _ = structpb.NewValue(value)
		}
	}
	if proxy, set := fields["proxy"]; set {
		checkConnection(proxy, path+".proxy", fail)
	}
}

func (c *connection) address() string { return net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) }

func runRemote(ctx context.Context, c *command, line string, out *output) error {
	if c.Connection == nil {
		return errors.New("there is no connection to run the command over")
	}
	client, err := c.Connection.dial(ctx, out.log)
	if err != nil {
		return err
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	defer session.Close()
	for name, value := range c.Environment {
		if err := session.Setenv(name, value); err != nil {
			return fmt.Errorf("the SSH server does not take the variable %s, see its AcceptEnv: %w", name, err)
		}
	}
	for name, value := range c.previousOutput() {
		if err := session.Setenv(name, value); err != nil {
			out.log(pulumirpc.LogSeverity_WARNING,
				fmt.Sprintf("the SSH server does not take the variable %s, see its AcceptEnv: %v", name, err))
		}
	}
	if c.Stdin != "" {
		session.Stdin = strings.NewReader(c.Stdin)
	}
	session.Stdout, session.Stderr = out.stdout, out.stderr
	defer context.AfterFunc(ctx, func() {
		_ = session.Signal(ssh.SIGKILL)
		_ = client.Close()
	})()
	return out.failure(session.Run(line), line)
}

// dial connects to the host. It tries again, at growing intervals, for as many errors as the limit allows.
func (c *connection) dial(ctx context.Context, log logger) (*ssh.Client, error) {
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	if socket := cmp.Or(c.AgentSocketPath, os.Getenv("SSH_AUTH_SOCK")); socket != "" {
		keys, err := net.Dial("unix", socket)
		if err != nil {
			return nil, fmt.Errorf("the SSH agent: %w", err)
		}
		defer keys.Close()
		config.Auth = append(config.Auth, ssh.PublicKeysCallback(agent.NewClient(keys).Signers))
	}
	if c.Proxy == nil {
		return c.connect(ctx, log, config, (&net.Dialer{}).DialContext)
	}
	proxy, err := c.Proxy.dial(ctx, log)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	client, err := c.connect(ctx, log, config, proxy.DialContext)
	if err != nil {
		_ = proxy.Close()
		return nil, err
	}
	go func() {
		_ = client.Wait()
		_ = proxy.Close()
	}()
	return client, nil
}

// config says how the host proves itself and how to log in, but for the keys of an agent.
func (c *connection) config() (*ssh.ClientConfig, error) {
	config := &ssh.ClientConfig{User: c.User, HostKeyCallback: ssh.InsecureIgnoreHostKey()}
	if c.HostKey != "" {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(c.HostKey))
		if err != nil {
			return nil, fmt.Errorf("the host key of %s: %w", c.Host, err)
		}
		config.HostKeyCallback = ssh.FixedHostKey(key)
	}
	if c.PrivateKey != "" {
		signer, err := ssh.ParsePrivateKey([]byte(c.PrivateKey))
		if c.PrivateKeyPassword != "" {
			signer, err = ssh.ParsePrivateKeyWithPassphrase([]byte(c.PrivateKey), []byte(c.PrivateKeyPassword))
		}
		if err != nil {
			return nil, fmt.Errorf("the private key for %s: %w", c.Host, err)
		}
		config.Auth = append(config.Auth, ssh.PublicKeys(signer))
	}
	if c.Password != "" {
		answer := func(_, _ string, questions []string, _ []bool) ([]string, error) {
			return slices.Repeat([]string{c.Password}, len(questions)), nil
		}
		config.Auth = append(config.Auth, ssh.Password(c.Password), ssh.KeyboardInteractive(answer))
	}
	return config, nil
}

type reach func(ctx context.Context, network, address string) (net.Conn, error)

func (c *connection) connect(
	ctx context.Context, log logger, config *ssh.ClientConfig, reach reach,
) (*ssh.Client, error) {
	connected, client, err := retry.Until(ctx, retry.Acceptor{
		Accept: func(try int, _ time.Duration) (bool, any, error) {
			client, err := c.attempt(ctx, config, reach)
			if err == nil {
				return true, client, nil
			}
			if c.DialErrorLimit >= 0 && try >= c.DialErrorLimit {
				return false, nil, fmt.Errorf("no connection to %s in %d attempts: %w", c.address(), try+1, err)
			}
			log(pulumirpc.LogSeverity_INFO, fmt.Sprintf("no connection to %s yet (%d): %v", c.address(), try+1, err))
			return false, nil, nil
		},
	})
	if !connected {
		return nil, cmp.Or(err, ctx.Err())
	}
	return client.(*ssh.Client), nil
}

// attempt connects once; the time limit holds for all of it, the handshake included.
func (c *connection) attempt(ctx context.Context, config *ssh.ClientConfig, reach reach) (*ssh.Client, error) {
	if c.PerDialTimeout > 0 {
		limited, cancel := context.WithTimeout(ctx, time.Duration(c.PerDialTimeout)*time.Second)
		defer cancel()
		ctx = limited
	}
	wire, err := reach(ctx, "tcp", c.address())
	if err != nil {
		return nil, err
	}
	hold := context.AfterFunc(ctx, func() { _ = wire.Close() })
	conn, channels, requests, err := ssh.NewClientConn(wire, c.address(), config)
	if !hold() {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		_ = wire.Close()
		return nil, err
	}
	return ssh.NewClient(conn, channels, requests), nil
}
