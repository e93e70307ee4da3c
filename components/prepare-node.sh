# Prepares one node for Istio's sidecars, now and at every boot: kernel modules and sysctls. POSIX sh, safe to repeat.
#
#   prepare [--may-reboot] WORD...   load and raise what is missing, check all, write the files that every boot reads
#   check WORD...                    change nothing; 0: all there, 1: some are missing, 3: cannot be told from here
#   boot                             print the ID of this boot
#   remove                           take the files away, put back what was there before; until the next boot all stays
#
# A WORD is a kernel module, or NAME=NUMBER, the least that a sysctl has to be: none is ever lowered.
# SYSCTLS is where a container has the files that it may write. ROOT is for tests: another root of the file system.
# The words are words on purpose:
# shellcheck disable=SC2086
set -eu
PATH=$PATH:/usr/sbin:/sbin
ROOT=${ROOT:-}
SYSCTLS=${SYSCTLS:-$ROOT/proc/sys}

list=$ROOT/etc/modules-load.d/istio-iptables.conf
limits=$ROOT/etc/sysctl.d/99-zz-istio-sidecars.conf # after all others, of which the last one counts
before=before-istio-governance                      # the system reads *.conf only
marker='# Written by istio-governance: the kernel modules that the sidecars of Istio need.'
limits_marker='# Written by istio-governance: the least that a node with many sidecars of Istio needs.'
kernel=$(uname -r)
modules=$ROOT/lib/modules

say() { printf '%s\n' "$*"; }
fail() {
  say "node preparation, kernel $kernel: $*" >&2
  exit 1
}

# Names in files of the kernel have a - where /proc/modules and /sys/module have a _.
pattern() { say "$1" | sed 's/[-_]/[-_]/g'; }
lists_module() { # FILE MODULE: modules.dep or modules.builtin
  [ -r "$1" ] && grep -Eq "/$(pattern "$2")\.ko(\.[a-z0-9]+)?(:|\$)" "$1"
}

is_loaded() { grep -qs "^$(say "$1" | tr - _) " "$ROOT/proc/modules"; }

# A kernel without loadable modules has no modules.builtin; its configuration tells.
kernel_config() {
  if [ -r "$ROOT/proc/config.gz" ]; then
    gzip -dc "$ROOT/proc/config.gz"
  elif [ -r "$ROOT/boot/config-$kernel" ]; then
    cat "$ROOT/boot/config-$kernel"
  fi
}
capitals() { tr '[:lower:]-' '[:upper:]_'; }
config_of() {
  case $1 in
    br_netfilter) say BRIDGE_NETFILTER ;;
    xt_REDIRECT) say NETFILTER_XT_TARGET_REDIRECT ;;
    xt_owner) say NETFILTER_XT_MATCH_OWNER ;;
    iptable_*) say "IP_NF_${1#iptable_}" | capitals ;;
    ip6table_*) say "IP6_NF_${1#ip6table_}" | capitals ;;
    nft_chain_nat) say NFT_NAT ;;
    *) say "$1" | capitals ;; # nf_nat, nf_tables, nft_redir, nft_ct: the same name
  esac
}
is_built_in() {
  [ -d "$ROOT/sys/module/$(say "$1" | tr - _)" ] ||
    lists_module "$modules/$kernel/modules.builtin" "$1" ||
    kernel_config | grep -q "^CONFIG_$(config_of "$1")=y\$"
}

is_there() { is_loaded "$1" || is_built_in "$1"; }

without() { # MODULE WORDS...: the words but that one
  left_out=$1
  shift
  for word; do [ "$word" = "$left_out" ] || printf '%s ' "$word"; done
}

# What a reboot would change, or nothing.
cured_by_reboot() { # MISSING...
  if [ "$(cat "$ROOT/proc/sys/kernel/modules_disabled" 2>/dev/null)" = 1 ]; then
    say 'kernel.modules_disabled is 1, so that it takes no module until the next boot'
  elif [ -e "$ROOT/proc/modules" ] && [ ! -d "$modules/$kernel" ]; then
    for other in "$modules"/*/; do
      for module; do
        lists_module "$other/modules.dep" "$module" || lists_module "$other/modules.builtin" "$module" || continue 2
      done
      say "it was updated to $(basename "$other") and its own modules are gone"
      return
    done
  fi
}

# Without the legacy tables iptables works through nftables, as on RHEL 10.
instead='nf_tables nft_chain_nat nft_compat'
only_legacy() {
  for module; do
    case $module in iptable_* | ip6table_*) ;; *) return 1 ;; esac
  done
}
are_there() {
  for module; do is_there "$module" || return 1; done
}

# A sysctl's name as a path, a name of one part of it.
path_of() { say "$1" | tr . /; }
live() { cat "$ROOT/proc/sys/$(path_of "$1")" 2>/dev/null || cat "$SYSCTLS/$(path_of "$1")" 2>/dev/null; }

larger() { if [ "$1" -ge "$2" ]; then say "$1"; else say "$2"; fi; }

# The numbers that the files of others set for NAME at boot, each with its file: "NUMBER FILE".
set_at_boot() { # NAME
  name=$(say "$1" | sed 's/[.]/[.\/]/g')
  for file in "$ROOT"/usr/lib/sysctl.d/*.conf "$ROOT"/usr/local/lib/sysctl.d/*.conf "$ROOT"/run/sysctl.d/*.conf \
    "$ROOT"/etc/sysctl.d/*.conf "$ROOT"/etc/sysctl.conf "$limits.$before"; do
    if [ ! -r "$file" ] || { [ "$file" = "$limits" ] && is_ours "$limits" "$limits_marker"; }; then continue; fi
    sed -n "s/^[[:space:]]*-\{0,1\}[[:space:]]*$name[[:space:]]*=[[:space:]]*\([0-9]\{1,\}\)[[:space:]]*\$/\1/p" "$file" |
      tail -n 1 | while read -r number; do say "$number $file"; done
  done
}

# systemd reads the files in the order of their names; without it /etc/sysctl.conf comes last.
reads_last() { # FILE
  case $1 in
    "$limits.$before") return 1 ;;
    "$ROOT/etc/sysctl.conf") [ ! -d "$ROOT/run/systemd/system" ] ;;
    *) [ "$(printf '%s\n' "${1##*/}" "${limits##*/}" | LC_ALL=C sort | tail -n 1)" != "${limits##*/}" ] ;;
  esac
}

# The most of what is wanted, what is there and what others set for boot; a warning for a file that would undo it.
most() { # NAME NUMBER
  number=$(larger "$2" "$(live "$1")")
  all=$(set_at_boot "$1")
  for other in $(say "$all" | cut -d ' ' -f 1); do number=$(larger "$number" "$other"); done
  say "$all" | while read -r other file; do
    if [ -n "$other" ] && [ "$other" -lt "$number" ] && reads_last "$file"; then
      say "warning: $file sets $1 back to $other at every boot: take that line out" >&2
    fi
  done
  say "$number"
}

raise() { # NAME=NUMBER...
  lines=''
  for word; do
    name=${word%%=*}
    [ -n "$(live "$name")" ] ||
      fail "this kernel has no sysctl $name; take it out of nodes.sysctls ($name: null)"
    number=$(most "$name" "${word#*=}")
    if [ "$(live "$name")" -lt "$number" ]; then
      { say "$number" >"$SYSCTLS/$(path_of "$name")"; } 2>/dev/null || true
      [ "$(live "$name")" -ge "${word#*=}" ] || fail "$name is $(live "$name") and cannot be set to $number from here:" \
        "$(own_way "$name" "$number"), or take it out of nodes.sysctls ($name: null)"
    fi
    lines="$lines
$name = $number"
  done
  if [ $# = 0 ]; then
    take_away "$limits" "$limits_marker" >/dev/null
  else
    # What somebody else's file of that name sets counts as before.
    theirs=$limits.$before
    if [ -e "$limits" ] && ! is_ours "$limits" "$limits_marker"; then theirs=$limits; fi
    others=$(cat "$theirs" 2>/dev/null) || true
    write "$limits" "$limits_marker" "$limits_marker${others:+
$others}$lines" ||
      say "warning: $limits cannot be written, so that $name may be lower again after the next boot:" \
        "$(own_way "$name" "$number")" >&2
  fi
  say "$lines" | sed '/^$/d'
}

is_sysctl() { case $1 in *=*) return 0 ;; *) return 1 ;; esac }
modules_of() { for word; do is_sysctl "$word" || printf '%s ' "$word"; done; }
sysctls_of() { for word; do if is_sysctl "$word"; then printf '%s ' "$word"; fi; done; }

prepare() {
  may_reboot=no
  if [ "$1" = --may-reboot ]; then
    may_reboot=yes
    shift
  fi
  raised=$(sysctls_of "$@")
  load $(modules_of "$@")
  raise $raised
  if [ -n "$missing" ]; then
    say "reboot needed since boot $(boot) for$missing: $reason"
  fi
}

load() {
  wanted=$* missing='' said=''
  for module; do
    is_there "$module" && continue
    answer=$(modprobe -- "$module" 2>&1) || said="$said $answer"
    is_there "$module" || missing="$missing $module"
  done
  if [ -n "$missing" ] && only_legacy $missing; then
    for module in $instead; do is_there "$module" || modprobe -- "$module" 2>/dev/null || break; done
    if are_there $instead; then
      say "warning: kernel $kernel has no$missing; iptables works through nftables instead:" \
        'consider mesh.values.istiod.global.nativeNftables and the same for cni' >&2
      for module in $missing; do wanted=$(without "$module" $wanted); done
      wanted="$wanted $instead" missing=''
    fi
  fi
  reason=''
  if [ -n "$missing" ]; then
    reason=$(cured_by_reboot $missing)
    [ -n "$reason" ] || fail "these modules cannot be loaded:$missing${said:+:$said}"
    [ $may_reboot = yes ] || fail "these modules cannot be loaded:$missing; $reason." \
      'Reboot the node, or set nodes.reboot to true'
  fi
  keep $wanted
  for module in $wanted; do
    if is_loaded "$module"; then say "$module: loaded"; elif is_built_in "$module"; then say "$module: built in"; fi
  done
}

# What the system wants instead of a change from here.
own_way() { # NAME NUMBER: of a sysctl; no words: the modules
  system=$(sed -n 's/^ID=//p' "$ROOT/etc/os-release" 2>/dev/null | tr -d '"') || true
  case $system-$# in
    bottlerocket-2) say "set settings.kernel.sysctl.\"$1\" to \"$2\" by apiclient or in the user data" ;;
    talos-2) say "name $1: \"$2\" under machine.sysctls in the machine configuration" ;;
    *-2) say "let the image or the node pool set $1 to $2" ;;
    bottlerocket-*) say "set settings.kernel.modules.$module.autoload (and so on) by apiclient or in the user data" ;;
    talos-*) say 'name the modules under machine.kernel.modules in the machine configuration' ;;
    *) say 'let the image of the node load them at boot, and set nodes.mode to none' ;;
  esac
}

is_ours() { [ "$(head -n 1 "$1")" = "$2" ]; } # FILE MARKER

# Writes a file for every boot, whole or not at all, also when one machine is prepared under two names at once;
# somebody else's file of that name is kept.
write() { # FILE MARKER CONTENT
  [ "$(cat "$1" 2>/dev/null)" = "$3" ] && return
  { mkdir -p "${1%/*}" && say "$3" >"$1.new.$$"; } 2>/dev/null || return 1
  if [ -e "$1" ] && ! is_ours "$1" "$2"; then mv "$1" "$1.$before"; fi
  mv "$1.new.$$" "$1"
}

keep() {
  content=$marker
  for module; do content="$content
$module"; done
  write "$list" "$marker" "$content" && return
  for module; do
    is_built_in "$module" && continue
    fail "$list cannot be written, so that the modules would be gone after the next boot; $(own_way)"
  done
}

boot() { cat "$ROOT/proc/sys/kernel/random/boot_id"; }

check() {
  low='' missing=''
  for word in $(sysctls_of "$@"); do
    number=$(live "${word%%=*}")
    [ "${number:-0}" -ge "${word#*=}" ] || low="$low ${word%%=*}=${number:-none}"
  done
  for module in $(modules_of "$@"); do is_there "$module" || missing="$missing $module"; done
  if [ -n "$missing" ] && only_legacy $missing && are_there $instead; then missing=''; fi
  if [ -n "$low" ]; then say "too low:$low"; fi
  if [ -n "$missing" ]; then
    say "missing:$missing"
    # In most containers only loaded modules can be seen, not those that are built in.
    [ -r "$modules/$kernel/modules.builtin" ] || [ -n "$(kernel_config | head -n 1)" ] || exit 3
  fi
  [ -z "$missing$low" ]
}

# Somebody else's file of that name comes back.
take_away() { # FILE MARKER
  if [ ! -e "$1" ]; then
    say "there is no $1 to remove"
  elif is_ours "$1" "$2"; then
    rm -f "$1"
    if [ -e "$1.$before" ]; then mv "$1.$before" "$1"; fi
    say "removed $1; what it set stays until the next boot"
  else
    say "$1 is somebody else's by now: kept"
  fi
}

remove() {
  take_away "$list" "$marker"
  take_away "$limits" "$limits_marker"
}

"$@"
