package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// runLocal runs line in a process group of its own, so that a cancellation ends whatever it has started as well.
func runLocal(ctx context.Context, c *command, line string, out *output) error {
	interpreter := c.Interpreter
	if len(interpreter) == 0 {
		interpreter = []string{"/bin/sh", "-c"}
	}
	process := exec.Command(interpreter[0], slices.Concat(interpreter[1:], []string{line})...)
	process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	process.Dir = c.Dir
	process.Env = os.Environ()
	for _, variables := range []map[string]string{c.Environment, c.previousOutput()} {
		for name, value := range variables {
			process.Env = append(process.Env, name+"="+value)
		}
	}
	if c.Stdin != "" {
		process.Stdin = strings.NewReader(c.Stdin)
	}
	process.Stdout, process.Stderr = out.stdout, out.stderr
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := process.Start(); err != nil {
		return out.failure(err, line)
	}
	defer context.AfterFunc(ctx, func() { _ = syscall.Kill(-process.Process.Pid, syscall.SIGKILL) })()
	return out.failure(process.Wait(), line)
}

type logger func(severity pulumirpc.LogSeverity, message string)

// output collects what a command prints: either stream for the outputs of the resource, and both together for an
// error.
type output struct {
	mutex          sync.Mutex
	stdout, stderr *stream
	both           bytes.Buffer
	log            logger
}

func newOutput(logging string, log logger) *output {
	out := &output{log: log}
	all := logging == "" || logging == "stdoutAndStderr"
	out.stdout = &stream{out: out, logged: all || logging == "stdout"}
	out.stderr = &stream{out: out, logged: all || logging == "stderr"}
	return out
}

// flush logs the last lines, those that no line feed ends.
func (out *output) flush() {
	for _, s := range []*stream{out.stdout, out.stderr} {
		if s.logged && len(s.line) > 0 {
			out.log(pulumirpc.LogSeverity_INFO, string(s.line))
		}
	}
}

// failure adds line and what it printed to the error it ended with, if it did.
func (out *output) failure(err error, line string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: running %q, with this output:\n%s", err, line, out.both.String())
}

type stream struct {
	out    *output
	logged bool
	whole  bytes.Buffer
	line   []byte // logged once it is complete
}

func (s *stream) Write(printed []byte) (int, error) {
	s.out.mutex.Lock()
	defer s.out.mutex.Unlock()
	s.whole.Write(printed)
	s.out.both.Write(printed)
	if !s.logged {
		return len(printed), nil
	}
	s.line = append(s.line, printed...)
	for {
		line, rest, complete := bytes.Cut(s.line, []byte("\n"))
		if !complete {
			return len(printed), nil
		}
		s.out.log(pulumirpc.LogSeverity_INFO, string(line))
		s.line = rest
	}
}

// text is all that was printed without the line feed that ends it.
func (s *stream) text() string { return strings.TrimSuffix(s.whole.String(), "\n") }
