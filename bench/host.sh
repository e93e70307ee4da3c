#!/bin/sh
# The first process of a host in namespaces of its own, which end with it and take every mount along.
# usage: host.sh IMAGE FOLDER; FOLDER is empty and stays so, as seen from outside
set -eu
mount -t tmpfs tmpfs "$2"
cd "$2"
mkdir disk upper work root
mount -o loop,ro "$1" disk
mount -t overlay overlay -o lowerdir=disk,upperdir=upper,workdir=work root
cd root
mount --rbind /dev dev
mount --rbind /sys sys
mount -t proc proc proc
mount -t tmpfs tmpfs run
mkdir run/sshd
pivot_root . mnt
cd /
umount -l /mnt
exec /usr/sbin/sshd -D -e
