#!/bin/sh
# Gives the node its own file system and starts its first process; runs as process 1 of new mount and PID
# namespaces, so that killing that process ends every process of the node and takes every mount along.
# usage: node.sh LOWER DISK BINARIES CGROUP COMMAND...
set -eu
lower=$1 disk=$2 binaries=$3 cgroup=$4
shift 4

mkdir -p "$disk/upper" "$disk/work" "$disk/root" "$disk/containerd" "$disk/kubelet" "$disk/log"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$disk/upper,workdir=$disk/work" "$disk/root"
cd "$disk/root"
mkdir -p dev proc sys run mnt var/lib/containerd var/lib/kubelet var/log usr/local/bin
mount --rbind /dev dev
mount --rbind /sys sys
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount --bind "$binaries" usr/local/bin
# An overlay cannot be the upper layer of a pod's overlay, so these two lie on the disk itself; logs are read from outside.
mount --bind "$disk/containerd" var/lib/containerd
mount --bind "$disk/kubelet" var/lib/kubelet
mount --bind "$disk/log" var/log

# The kubelet would set these for the whole machine: let it find what it wants in files of its own.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=run/sysctl/${setting%=*}
    mkdir -p "${file%/*}"
    echo "${setting#*=}" >"$file"
    mount --bind "$file" "proc/sys/${setting%=*}"
done
echo 1 >proc/sys/net/ipv4/ip_forward

# Pods below a control group of their own: two kubelets on one machine would delete each other's.
if [ -f sys/fs/cgroup/cgroup.controllers ]; then
    for controller in $(cat sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" >sys/fs/cgroup/cgroup.subtree_control || true
    done
    mkdir -p "sys/fs/cgroup/$cgroup"
else
    for hierarchy in sys/fs/cgroup/*/; do
        [ ! -f "$hierarchy/tasks" ] || mkdir -p "$hierarchy/$cgroup"
    done
    # A new cpuset group has no CPUs, and so takes no process, until it is given its parent's.
    for file in cpuset.cpus cpuset.mems; do
        [ ! -f "sys/fs/cgroup/cpuset/$file" ] || cat "sys/fs/cgroup/cpuset/$file" >"sys/fs/cgroup/cpuset/$cgroup/$file"
    done
fi

pivot_root . mnt
cd /
umount -l /mnt
# Mounts that a pod makes with mountPropagation Bidirectional must reach the node, and those of the node the pods.
mount --make-rshared /
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
touch /run/ready
exec "$@"
