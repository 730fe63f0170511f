#!/bin/bash
# Installs MicroK8s and makes this machine a member of its cluster. Every step looks first and may be repeated: the
# unit that runs this starts it again until it succeeds, and at every boot. What it did is told in $DONE, what went
# wrong last in $FAILED.
# The trap below is for functions, too.
set -Eeuo pipefail

# NAME, ADDRESS, CHANNEL, CLASSIC, HOLD, SEED (address), PREVIOUS (address), PEERS (addresses), ADDONS (arguments).
. /etc/lab/microk8s.env
DONE=/var/lib/lab/microk8s.done
FAILED=/var/lib/lab/microk8s.err
BACKEND=/var/snap/microk8s/current/var/kubernetes/backend/cluster.yaml
JOINING=/var/snap/microk8s/current/var/lock/join-in-progress
export PATH=$PATH:/snap/bin

mkdir -p /var/lib/lab
say() { echo "$*"; step=$*; }
LOG=/run/lab-microk8s.log
: >"$LOG"
trap 'echo "failed to $step (line $LINENO): $(tail -n 1 "$LOG")" >"$FAILED"' ERR

say "write the names of the cluster"
if ! grep -q '^# lab: begin$' /etc/hosts; then
  { echo "# lab: begin"; cat /etc/lab/hosts; echo "# lab: end"; } >>/etc/hosts
fi

# Nothing is to change any more: a reboot of a member.
[ -e "$DONE" ] && exit 0

say "install the snap"
snap wait system seed.loaded
if ! snap list microk8s >/dev/null 2>&1; then
  # shellcheck disable=SC2086
  snap install microk8s $CLASSIC --channel="$CHANNEL"
fi
if [ "$HOLD" = yes ]; then snap refresh --hold microk8s; fi

say "wait until MicroK8s is ready"
microk8s status --wait-ready --timeout 600 >/dev/null

# A member's datastore answers on its own address; that of a machine alone only on loopback.
clustered() { timeout 3 bash -c "exec 3<>/dev/tcp/$1/19001" 2>/dev/null; }
healthy() { curl --silent --insecure --fail --max-time 5 "https://$1:25000/health" >/dev/null; }
on_lan() { [ -e "$BACKEND" ] && grep -q "$ADDRESS:19001" "$BACKEND"; }
member() { on_lan && [ "$(grep -c 'Address:' "$BACKEND")" -gt 1 ]; }

# Whom to join: a peer that is in a cluster already; else the one that founds it. The founder, made anew, finds a peer
# and joins it instead of founding another cluster.
target() {
  for peer in $PEERS; do
    if clustered "$peer" && healthy "$peer"; then echo "$peer"; return; fi
  done
  if [ "$ADDRESS" != "$SEED" ]; then echo "$SEED"; fi
}

if ! member; then
  say "find the cluster"
  if [ -e "$JOINING" ]; then
    # A join that was cut off leaves what the next one is refused for.
    snap remove --purge microk8s
    exit 1
  fi
  to=$(target)
  # The founder's datastore leaves loopback before it lets the first one in, and names that one up to half a minute later:
  # who is in a cluster by now may be in this one. Looked at after the others were asked, it misses nobody.
  if [ "$ADDRESS" = "$SEED" ] && on_lan; then to=; fi
  if [ -n "$to" ]; then
    say "wait for the turn behind $PREVIOUS"
    for _ in $(seq 120); do
      if [ -z "$PREVIOUS" ] || [ "$PREVIOUS" = "$SEED" ] || clustered "$PREVIOUS"; then break; fi
      sleep 15
    done
    if [ -n "$PREVIOUS" ] && [ "$PREVIOUS" != "$SEED" ]; then sleep 30; fi
    say "wait until $to answers"
    healthy "$to"
    say "join $to"
    # What an earlier attempt was refused for is acted upon: it must not be read once this one has succeeded.
    rm -f "$FAILED"
    microk8s join "$to:25000/$(cat /etc/lab/microk8s.token)" --skip-verify >"$LOG" 2>&1
    # It says that it succeeded also where the datastore did not confirm.
    microk8s status --wait-ready --timeout 600 >/dev/null
    member
  fi
fi

if [ "$ADDRESS" = "$SEED" ]; then
  say "wait until everybody has joined"
  for peer in $PEERS; do clustered "$peer"; done
  # Who is in a cluster while nobody has come to this one is in another: the next attempt finds it.
  [ -z "$PEERS" ] || on_lan
  for addon in $ADDONS; do
    say "enable $addon"
    microk8s enable "$addon"
  done
fi

rm -f "$FAILED"
echo "$CHANNEL" >"$DONE.new"
mv "$DONE.new" "$DONE"
