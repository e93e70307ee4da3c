# Prepares one node for Istio's sidecars: kernel modules, loaded now and at every boot. POSIX sh, safe to repeat.
#
#   prepare [--may-reboot] MODULE...   load what is missing, check all, write the list that is loaded at every boot
#   check MODULE...                    change nothing; 0: all there, 1: some are missing, 3: cannot be told from here
#   boot                               print the ID of this boot
#   remove                             take the list away, put back what was there before; modules stay loaded
#
# ROOT is for tests: another root of the file system. The names of modules are words on purpose:
# shellcheck disable=SC2086
set -eu
PATH=$PATH:/usr/sbin:/sbin
ROOT=${ROOT:-}

list=$ROOT/etc/modules-load.d/istio-iptables.conf
backup=$list.before-istio-governance # modules-load.d reads *.conf only
marker='# Written by istio-governance: the kernel modules that the sidecars of Istio need.'
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

prepare() {
  may_reboot=no
  if [ "$1" = --may-reboot ]; then
    may_reboot=yes
    shift
  fi
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
  if [ -n "$missing" ]; then
    say "reboot needed since boot $(boot) for$missing: $reason"
  fi
}

# Writes the list for every boot, whole or not at all, also when one machine is prepared under two names at once;
# somebody else's list of that name is kept.
keep() {
  content=$marker new=$list.new.$$
  for module; do content="$content
$module"; done
  [ "$(cat "$list" 2>/dev/null)" = "$content" ] && return
  if { mkdir -p "${list%/*}" && say "$content" >"$new"; } 2>/dev/null; then
    if [ -e "$list" ] && ! is_ours; then mv "$list" "$backup"; fi
    mv "$new" "$list"
    return
  fi
  for module; do
    is_built_in "$module" && continue
    system=$(sed -n 's/^ID=//p' "$ROOT/etc/os-release" 2>/dev/null | tr -d '"') || true
    case $system in
      bottlerocket) how="set settings.kernel.modules.$module.autoload (and so on) by apiclient or in the user data" ;;
      talos) how='name the modules under machine.kernel.modules in the machine configuration' ;;
      *) how='let the image of the node load them at boot, and set nodes.mode to none' ;;
    esac
    fail "$list cannot be written, so that the modules would be gone after the next boot; $how"
  done
}

is_ours() { [ "$(head -n 1 "$list")" = "$marker" ]; }

boot() { cat "$ROOT/proc/sys/kernel/random/boot_id"; }

check() {
  missing=''
  for module; do is_there "$module" || missing="$missing $module"; done
  if [ -z "$missing" ] || { only_legacy $missing && are_there $instead; }; then return; fi
  say "missing:$missing"
  # In most containers only loaded modules can be seen, not those that are built in.
  [ -r "$modules/$kernel/modules.builtin" ] || [ -n "$(kernel_config | head -n 1)" ] || exit 3
  exit 1
}

remove() {
  if [ ! -e "$list" ]; then
    say 'there is no list of modules to remove'
  elif is_ours; then
    rm -f "$list"
    if [ -e "$backup" ]; then mv "$backup" "$list"; fi
    say "removed $list; the modules stay loaded until the next boot"
  else
    say "$list is somebody else's by now: kept"
  fi
}

"$@"
