"""What takes long: an answer, a stream of gRPC, a WebSocket and a TCP connection, from a pod to a service for it.

The server ends at once when it is told to, as most do: what is in flight then is cut.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.cluster.kubectl import Kubectl

NAME = "stream-service"
PORTS: Mapping[str, Mapping[str, Any]] = {"http": {"port": 80}, "grpc": {"port": 81}, "tcp": {"port": 82}}
_HELD = 600

# Sleeps before it answers, and echoes what comes after an upgrade or at the port of TCP. Of gRPC it speaks as much as a
# stream from the server takes: frames of HTTP/2, a message each second, the status in the trailers.
_SERVER = r"""
use IO::Socket::INET;
$SIG{CHLD} = "IGNORE"; $SIG{TERM} = $SIG{QUIT} = sub { exit };
sub echo { my $c = shift; while (sysread($c, my $b, 4096)) { syswrite($c, $b) } }
sub http {
  my $c = shift;
  while (1) {
    my $head = "";
    while ($head !~ /\r\n\r\n/) { sysread($c, my $b, 4096) or return; $head .= $b }
    if ($head =~ /^upgrade: *websocket/mi) {
      syswrite($c, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
      return echo($c);
    }
    sleep($1) if $head =~ /seconds=(\d+)/;
    my $text = "this is $ARGV[0]\n";
    syswrite($c, "HTTP/1.1 200 OK\r\ncontent-length: " . length($text) . "\r\n\r\n" . $text);
  }
}
sub header { my ($name, $value) = @_; "\0" . chr(length $name) . $name . chr(length $value) . $value }
sub grpc {
  my ($c, $in) = (shift, "");
  my $take = sub {
    my $n = shift;
    while (length $in < $n) { sysread($c, $in, 4096, length $in) or exit }
    substr($in, 0, $n, "");
  };
  my $put = sub {
    my ($type, $flags, $id, $body) = @_;
    syswrite($c, substr(pack("NCCN", length $body, $type, $flags, $id), 1) . $body);
  };
  $take->(24); $put->(4, 0, 0, "");
  while (1) {
    my ($high, $low, $type, $flags, $id) = unpack("CnCCN", $take->(9));
    my $body = $take->($high * 65536 + $low);
    $put->($type, 1, 0, $type == 6 ? $body : "") if ($type == 4 || $type == 6) && !($flags & 1);
    next if $type != 0 || length $body < 9 || fork;
    $put->(1, 4, $id, "\x88" . header("content-type", "application/grpc"));
    for (1 .. substr($body, 5, 4)) { $put->(0, 0, $id, "\0\0\0\0\4tick"); sleep 1 }
    $put->(1, 5, $id, header("grpc-status", "0"));
    exit;
  }
}
sub serve {
  my ($port, $handle) = @_;
  my $s = IO::Socket::INET->new(LocalPort => $port, Listen => 128, ReuseAddr => 1) or die;
  while (1) { my $c = $s->accept or next; if (fork == 0) { $handle->($c); exit } close $c }
}
if (fork == 0) { serve(81, \&grpc) }
if (fork == 0) { serve(82, \&echo) }
serve(80, \&http);
"""
_STREAM = r"""
printf '\0\0\0\0\4%s' "$0" | curl -sS --http2-prior-knowledge --data-binary @- --output /dev/null --dump-header - \
  --header 'content-type: application/grpc' --header 'te: trailers' --write-out '%{size_download} bytes' "$1"
"""
_ECHOED = r"""
use IO::Socket::INET;
my ($host, $port, $upgrade, $seconds) = @ARGV;
$SIG{ALRM} = sub { print "no answer\n"; exit 1 };
my $s = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port) or die "not connected\n";
if ($upgrade) {
  syswrite($s, "GET / HTTP/1.1\r\nhost: $host\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    . "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
  my $head = "";
  while ($head !~ /\r\n\r\n/) { alarm 10; sysread($s, my $b, 1) or die "no upgrade\n"; $head .= $b }
  $head =~ / 101 / or die $head;
}
for my $n (1 .. $seconds) {
  my $frame = pack("CCNa4", 0x81, 0x84, 0, sprintf("%04d", $n)), my $back = "";
  alarm 10;
  syswrite($s, $frame) or die "cut after $n seconds\n";
  while (length($back) < length($frame)) { sysread($s, my $b, 64) or die "cut after $n seconds\n"; $back .= $b }
  $back eq $frame or die "another frame\n";
  sleep 1;
}
print "whole\n";
"""


def version(name: str, **fields: Any) -> dict[str, Any]:
    """A version of the service, as the configuration has it."""
    return {"command": ["perl", "-e", _SERVER, name], **fields}


@dataclass(frozen=True)
class Held:
    """Something long that is under way, and what is printed when it ends `whole`."""

    kind: str
    whole: str
    process: subprocess.Popen[str]

    @property
    def cut(self) -> str:
        """What happened to it in the place of what should have; waits for its end."""
        printed, errors = self.process.communicate(timeout=_HELD)
        return "" if re.search(self.whole, printed) else f"{self.kind}: {printed} {errors}"


def held(kubectl: Kubectl, caller: Sequence[str], host: str, seconds: int, *kinds: str) -> list[Held]:
    """Begins what takes so many `seconds`, one of each kind; `caller` is whose container, as `kubectl exec` has it."""
    commands = {
        "answer": (["curl", "-sS", "--fail", f"http://{host}/?seconds={seconds}"], "this is"),
        "stream": (
            ["sh", "-c", _STREAM, f"{seconds:04}", f"http://{host}:81/stream"],
            rf"grpc-status: 0\s+{9 * seconds} bytes",
        ),
        "WebSocket": (["perl", "-e", _ECHOED, host, "80", "upgrade", str(seconds)], "whole"),
        "connection": (["perl", "-e", _ECHOED, host, "82", "", str(seconds)], "whole"),
    }
    return [
        Held(kind, whole, _begun(kubectl.command("exec", *caller, "--", *command)))
        for kind, (command, whole) in commands.items()
        if kind in (kinds or commands)
    ]


def _begun(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
