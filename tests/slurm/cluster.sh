#!/bin/bash
# A real SLURM cluster of one node on this machine, for tests/launch/test_slurm.py:
#   tests/slurm/cluster.sh install    apt-get install slurm-wlm and munge (Debian, as root)
#   tests/slurm/cluster.sh up FOLDER  start it, its files under FOLDER; idle within 30 s, or 1
#   tests/slurm/cluster.sh down FOLDER
#   tests/slurm/cluster.sh remove     apt-get remove both again
# It has no accounting (no sacct), as small clusters have none. Needs root.
set -euo pipefail

node=$(hostname -s)

packages() { DEBIAN_FRONTEND=noninteractive apt-get "$@" -y -q slurm-wlm munge >/dev/null; }

configure() {
    mkdir -p "$1"/{state,spool,log}
    cat > "$1/slurm.conf" <<END
ClusterName=fgvc
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
KillWait=30
MpiDefault=none
SwitchType=switch/none
StateSaveLocation=$1/state
SlurmdSpoolDir=$1/spool
SlurmctldLogFile=$1/log/slurmctld.log
SlurmdLogFile=$1/log/slurmd.log
SlurmctldPidFile=$1/slurmctld.pid
SlurmdPidFile=$1/slurmd.pid
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) RealMemory=2000 State=UNKNOWN
PartitionName=test Nodes=$node Default=YES MaxTime=INFINITE State=UP
END
}

up() {
    configure "$1"
    mkdir -p /run/munge
    chown munge:munge /run/munge
    pidof munged >/dev/null || runuser -u munge -- /usr/sbin/munged
    SLURM_CONF=$1/slurm.conf slurmctld
    SLURM_CONF=$1/slurm.conf slurmd
    for _ in $(seq 60); do
        [ "$(SLURM_CONF=$1/slurm.conf sinfo -h -o %t 2>/dev/null)" = idle ] && return 0
        sleep 0.5
    done
    echo "the node is not idle after 30 s:" >&2
    tail -n 20 "$1"/log/*.log >&2
    return 1
}

down() {
    for name in slurmd slurmctld; do
        [ ! -e "$1/$name.pid" ] || kill "$(cat "$1/$name.pid")" 2>/dev/null || true
    done
    [ ! -e /run/munge/munged.pid ] || kill "$(cat /run/munge/munged.pid)" 2>/dev/null || true
}

case "${1:-}" in
    install) packages install ;;
    remove) packages remove ;;
    up | down) "$1" "$(realpath -m "$2")" ;;
    *) sed -n '2,7s/^# \?//p' "$0" && exit 2 ;;
esac
