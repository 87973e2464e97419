# The first process of a machine, in new namespaces, until systemd takes its place.
# Arguments: the root that machines share, and the machine's disk.
set -eu
base=$1 disk=$2

# A line comes once the machine's network is there.
read -r _

mount -t overlay -o "lowerdir=$base,upperdir=$disk/files,workdir=$disk/work" overlay "$disk/root"
cd "$disk/root"
# Data of containers may not lie on an overlay.
mount --bind "$disk/var" var
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755,nosuid,nodev run run

mount -t tmpfs -o mode=755,nosuid dev dev
mkdir dev/pts dev/shm
for device in null zero full random urandom tty kmsg fuse; do
  [ -e "/dev/$device" ] || continue
  : >"dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr

# Settings that are the whole host's: the machine sees files in their place. Those
# of the network are its own.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t proc proc mnt
mount --bind mnt/sys/net proc/sys/net
umount --lazy mnt
echo 0 >proc/sys/net/ipv4/ip_forward
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
  kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  own=$disk/settings/$setting
  if [ ! -e "$own" ]; then
    mkdir -p "${own%/*}"
    cat "/proc/sys/$setting" >"$own"
  fi
  mount --bind "$own" "proc/sys/$setting"
done

# Its control groups: version 2, or each hierarchy of version 1 at its usual place.
if [ "$(wc -l </proc/self/cgroup)" = 1 ]; then
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  kernel=
else
  mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
  while IFS=: read -r number controllers _; do
    [ "$number" != 0 ] || continue
    options=$controllers
    [ "$controllers" = "${controllers#name=}" ] || options=none,$controllers
    mkdir -p "sys/fs/cgroup/${controllers#name=}"
    mount -t cgroup -o "$options" cgroup "sys/fs/cgroup/${controllers#name=}"
  done </proc/self/cgroup
  # What systemd 257 wants to hear before it starts on version 1.
  kernel="systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
fi

mkdir -p "$disk/root/run/before"
pivot_root . run/before
umount --lazy /run/before
rmdir /run/before
mount --make-rshared /
hostname "$(cat /etc/hostname)"
cd /
exec env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin \
  SYSTEMD_PROC_CMDLINE="$kernel" /lib/systemd/systemd --log-target=journal </dev/null
