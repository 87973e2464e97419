# Ends the machines of a world and removes all there is of it. Argument: its folder.
# A process is killed only if its environment says that it is of this world.
world=$1

is_ours() {
  tr '\0' '\n' <"/proc/$1/environ" | grep -Fqx "BERTH_WORLD=$world"
} 2>/dev/null

for file in "$world"/processes/*.pid; do
  id=$(cat "$file" 2>/dev/null) && is_ours "$id" && kill -KILL "$id"
done
for machine in "$world"/machines/*/; do
  machine=${machine%/}
  [ -d "$machine" ] || continue
  if [ -e "$machine/ids" ] && read -r outer inner <"$machine/ids" && is_ours "$outer"; then
    # Process 1 of a namespace takes all others with it.
    kill -KILL "$inner"
    tries=0
    while [ -e "/proc/$inner" ] && [ $tries -lt 500 ]; do
      sleep 0.02
      tries=$((tries + 1))
    done
  fi
  [ ! -e "$machine/groups" ] || while read -r group; do
    tries=0
    while [ -d "$group" ] && [ $tries -lt 50 ]; do
      find "$group" -depth -type d -exec rmdir {} ';' 2>/dev/null
      [ -d "$group" ] && sleep 0.02
      tries=$((tries + 1))
    done
  done <"$machine/groups"
  # A virtual machine has none that is mounted.
  [ ! -d "$machine/disk" ] || umount "$machine/disk" 2>/dev/null || umount --lazy "$machine/disk"
done
ip netns delete "$(cat "$world/network")" 2>/dev/null
rm -rf --one-file-system -- "$world"
