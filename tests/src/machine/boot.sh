# Real systemd as process 1 of namespaces of its own. Arguments: DIR CGROUP.
# Its root is this machine's, with a layer in memory on top that takes what is written. DIR/run is its /run, seen from outside too.
set -e
export dir=$1 cgroup=$2
# Only what is inside joins the cgroup, which its cgroup namespace takes as its root: systemd hands no controllers on while there
# is a process in its root that it cannot move away.
exec unshare --mount --pid --ipc --uts --net --fork --kill-child --propagation private bash -c '
  set -e
  echo 0 > "$cgroup/cgroup.procs"
  exec unshare --cgroup bash -c "$0"
' '
  set -e
  if [ -z "$CANARY_GUEST" ]; then
    mount -t tmpfs -o mode=755 layer "$dir/layer"; mkdir "$dir/layer/upper" "$dir/layer/work"
    mount -t overlay root -o "lowerdir=/,upperdir=$dir/layer/upper,workdir=$dir/layer/work" "$dir/root"
  else # the kernels of the guests have no overlayfs, and their disk is small
    mount -t tmpfs -o mode=755 root "$dir/root"
    cp -a /bin /sbin /lib /lib64 /etc "$dir/root"; cd "$dir/root"; mkdir dev proc run sys tmp usr var; mount --bind /usr usr
  fi
  run=$dir/run; cd "$dir/root"
  mount -t proc proc proc
  mount --bind proc/sys proc/sys; mount -o remount,bind,ro proc/sys # keeps its sysctls off this kernel
  mount -t sysfs -o ro sysfs sys 2>/dev/null || mount --rbind /sys sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t tmpfs -o mode=755,nosuid tmpfs dev; mkdir dev/pts dev/shm
  for n in null zero full random urandom tty; do touch dev/$n; mount --bind /dev/$n dev/$n; done
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts; ln -s pts/ptmx dev/ptmx
  ln -s /proc/self/fd dev/fd; ln -s /proc/self/fd/0 dev/stdin; ln -s /proc/self/fd/1 dev/stdout; ln -s /proc/self/fd/2 dev/stderr
  mount --bind "$run" run
  mount -t tmpfs tmpfs tmp
  rm -f etc/fstab; : > etc/machine-id
  hostname machine; ip link set lo up
  mkdir -p .old; pivot_root . .old; cd /
  umount -l /.old
  touch /run/namespaces-are-there
  exec env -i container=canary-machine PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
    /lib/systemd/systemd --log-target=console --log-level=info systemd.unit=machine.target
'
