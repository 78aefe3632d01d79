#!/usr/bin/env bash
# mini_slurm.sh - a throw-away SLURM cluster on one machine (no systemd, no munge, no cgroups, no database
# unless asked for), for end-to-end tests of `snakemake --profile slurm`.
#
#   mini_slurm.sh install          apt packages (root; Debian/Ubuntu)
#   mini_slurm.sh start            bring the cluster up, wait until all nodes are idle
#   mini_slurm.sh stop             cancel jobs, stop the daemons by their own pid files
#   mini_slurm.sh status           sinfo + squeue
#   mini_slurm.sh env              print `export SLURM_CONF=... PATH=...`: every shell that talks to the cluster needs
#                                  eval "$(tools/mini_slurm.sh env)", with the MINI_SLURM_DIR (or folder) of `start`
#   mini_slurm.sh run CMD...       start, run CMD with that environment, always stop
#   mini_slurm.sh crash NODE       what a power cut does to a node: kill -9 of its slurmd and of all that runs there
#   mini_slurm.sh boot NODE        start the slurmd of a crashed node again
#
# Settings (environment):
#   MINI_SLURM_DIR    state folder                          (default ./.mini_slurm)
#   MINI_SLURM_NODES  number of slurmd on this host         (default 2)
#   MINI_SLURM_GPUS   fake GPUs per node                    (default 8)
#   MINI_SLURM_CPUS   CPUs that each node claims            (default 16)
#   MINI_SLURM_MEM    memory (MB) that each node claims     (default 64000)
#   MINI_SLURM_PORT   first TCP port, loopback only         (default 17000)
#   MINI_SLURM_WAIT   seconds to wait for readiness         (default 40)
#   MINI_SLURM_SILENT seconds without a word from a node until it counts as down (default 60)
#   MINI_SLURM_DBD    1: with MariaDB and slurmdbd, so that sacct works (default 0)
set -euo pipefail
DIR=${MINI_SLURM_DIR:-$PWD/.mini_slurm}
NODES=${MINI_SLURM_NODES:-2}
GPUS=${MINI_SLURM_GPUS:-8}
CPUS=${MINI_SLURM_CPUS:-16}
MEM=${MINI_SLURM_MEM:-64000}
PORT=${MINI_SLURM_PORT:-17000}
WAIT=${MINI_SLURM_WAIT:-40}
SILENT=${MINI_SLURM_SILENT:-60}
DBD=${MINI_SLURM_DBD:-0}
export MINI_SLURM_DIR=$DIR # jobs inherit it: the sign by which stop and crash know the processes of this cluster
HOST=$(hostname -s)
export SLURM_CONF="$DIR/slurm.conf"
export PATH="$PATH:/usr/sbin:/sbin"

say() { echo "mini_slurm: $*" >&2; }

alive() { # alive PIDFILE NAME: does the pid in the file belong to a process of that name?
    local pid; pid=$(cat "$1" 2>/dev/null) || return 1
    [ -n "$pid" ] && [ -r "/proc/$pid/comm" ] && grep -q "^$2" "/proc/$pid/comm"
}

stop_one() { # stop_one PIDFILE NAME: TERM, wait 10 s at most, KILL
    local pid
    if alive "$1" "$2"; then
        pid=$(cat "$1"); kill -TERM "$pid" 2>/dev/null || true
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -KILL "$pid" 2>/dev/null || true
    fi
    rm -f "$1"
}

cmd_install() {
    local pk="slurmctld slurmd slurm-client"
    local program missing=""
    [ "$DBD" = 1 ] && pk="$pk slurmdbd mariadb-server"
    for program in slurmctld slurmd sbatch $([ "$DBD" = 1 ] && echo slurmdbd mariadbd); do
        command -v "$program" >/dev/null || missing=$program
    done
    [ -n "$missing" ] || { say "already installed"; return; }
    apt-get update -qq
    # policy-rc.d 101: the packages must not start daemons of their own
    [ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $pk >/dev/null
}

accounting() { # the lines of slurm.conf that say where jobs are remembered
    [ "$DBD" = 1 ] || { echo "AccountingStorageType=accounting_storage/none"; return; }
    printf '%s\n' "AccountingStorageType=accounting_storage/slurmdbd" "AccountingStorageHost=$HOST" \
        "AccountingStoragePort=$((PORT + NODES + 1))" "AccountingStorageTRES=gres/gpu"
}

write_conf() {
    mkdir -p "$DIR"/{ctld,log,run,gpu,bin}; chmod 755 "$DIR"
    # Client wrappers that carry SLURM_CONF: snakemake-executor-plugin-slurm-jobstep drops every
    # SLURM_* variable but a few before its inner srun, SLURM_CONF too, so PATH has to do it.
    local c
    for c in sbatch srun salloc squeue sinfo scancel scontrol sacct sacctmgr sstat sshare; do
        [ -x "/usr/bin/$c" ] || continue
        printf '#!/bin/sh\nSLURM_CONF=%s exec /usr/bin/%s "$@"\n' "$SLURM_CONF" "$c" >"$DIR/bin/$c"
        chmod +x "$DIR/bin/$c"
    done
    cat >"$DIR/slurm.conf" <<CONF
ClusterName=mini
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=0
$(accounting)
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.txt
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
StateSaveLocation=$DIR/ctld
SlurmdSpoolDir=$DIR/spool.%n
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.%n.log
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0,requeue_delay=1
MessageTimeout=30
SlurmdTimeout=$SILENT
KillWait=20
UnkillableStepTimeout=60
OverTimeLimit=0
MinJobAge=3600
MaxArraySize=1001
ReturnToService=2
CONF
    : >"$DIR/gres.conf"
    local i n
    for i in $(seq "$NODES"); do
        n="n$i"; mkdir -p "$DIR/spool.$n" "$DIR/gpu/$n"
        printf 'NodeName=%s NodeHostname=%s NodeAddr=127.0.0.1 Port=%s CPUs=%s RealMemory=%s Gres=gpu:%s State=UNKNOWN\n' \
            "$n" "$HOST" "$((PORT + i))" "$CPUS" "$MEM" "$GPUS" >>"$DIR/slurm.conf"
        if [ "$GPUS" -gt 0 ]; then
            for g in $(seq 0 $((GPUS - 1))); do
                # a character device makes slurmd set CUDA_VISIBLE_DEVICES; a plain file only counts
                mknod "$DIR/gpu/$n/nvidia$g" c 195 "$g" 2>/dev/null || : >"$DIR/gpu/$n/nvidia$g"
            done
            echo "NodeName=$n Name=gpu File=$DIR/gpu/$n/nvidia[0-$((GPUS - 1))]" >>"$DIR/gres.conf"
        fi
    done
    cat >>"$DIR/slurm.conf" <<CONF
PartitionName=gpu Nodes=n[1-$NODES] Default=YES MaxTime=24:00:00 DefMemPerCPU=100 PriorityTier=1 PreemptMode=REQUEUE State=UP
PartitionName=urgent Nodes=n[1-$NODES] MaxTime=24:00:00 DefMemPerCPU=100 PriorityTier=10 State=UP
CONF
}

await() { # await COMMAND...: until it succeeds, 15 s at most
    for _ in $(seq 150); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
    say "waited in vain for: $*"; return 1
}

start_dbd() {
    local sql=(mariadb --no-defaults -uroot -S "$DIR/run/mysql.sock")
    rm -rf "$DIR/mysql"
    mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$DIR/mysql" \
        --auth-root-authentication-method=normal --skip-test-db >"$DIR/log/mariadb-install.log" 2>&1
    mariadbd --no-defaults --user="$(id -un)" --datadir="$DIR/mysql" --socket="$DIR/run/mysql.sock" \
        --pid-file="$DIR/run/mariadbd.pid" --bind-address=127.0.0.1 --port=$((PORT + NODES + 2)) \
        --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 >"$DIR/log/mariadbd.log" 2>&1 </dev/null &
    await "${sql[@]}" -e "select 1"
    "${sql[@]}" -e "create database slurm_acct_db; create user slurm identified by 'mini'; grant all on slurm_acct_db.* to slurm;
        create user slurm@localhost identified by 'mini'; grant all on slurm_acct_db.* to slurm@localhost"
    cat >"$DIR/slurmdbd.conf" <<CONF
AuthType=auth/none
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$((PORT + NODES + 1))
SlurmUser=$(id -un)
PidFile=$DIR/run/slurmdbd.pid
LogFile=$DIR/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT + NODES + 2))
StorageUser=slurm
StoragePass=mini
StorageLoc=slurm_acct_db
CONF
    chmod 600 "$DIR/slurmdbd.conf"
    slurmdbd >"$DIR/log/slurmdbd.out" 2>&1 </dev/null
    await sacctmgr -n show cluster
    sacctmgr -i add cluster mini >/dev/null
}

cmd_start() {
    local t0; t0=$(date +%s%N)
    if alive "$DIR/run/slurmctld.pid" slurmctld; then say "already running in $DIR"; return; fi
    rm -rf "$DIR/ctld" "$DIR"/spool.* "$DIR/gpu"
    write_conf
    trap 'say "start failed; logs in $DIR/log"; tail -n 5 "$DIR"/log/slurm*.log >&2 || true; cmd_stop' ERR
    [ "$DBD" = 1 ] && start_dbd
    slurmctld -c >"$DIR/log/slurmctld.out" 2>&1 </dev/null
    for i in $(seq "$NODES"); do slurmd -N "n$i" >"$DIR/log/slurmd.n$i.out" 2>&1 </dev/null; done
    local idle=0
    for _ in $(seq $((WAIT * 10))); do
        idle=$(sinfo -h -p gpu -t idle -o %D 2>/dev/null | head -1 || true)
        [ "${idle:-0}" = "$NODES" ] && break
        sleep 0.1
    done
    trap - ERR
    if [ "${idle:-0}" != "$NODES" ]; then
        say "only ${idle:-0} of $NODES nodes idle after $WAIT s"; sinfo -N -l >&2 || true
        tail -n 5 "$DIR"/log/slurm*.log >&2 || true; cmd_stop; return 1
    fi
    say "$NODES nodes x $GPUS GPUs up in $(( ($(date +%s%N) - t0) / 1000000 )) ms; SLURM_CONF=$SLURM_CONF"
}

cmd_stop() {
    if alive "$DIR/run/slurmctld.pid" slurmctld; then
        timeout 10 scancel --full --signal=KILL -u "$(id -un)" >/dev/null 2>&1 || true
        timeout 10 scancel -u "$(id -un)" >/dev/null 2>&1 || true
        for _ in $(seq 80); do [ -z "$(timeout 5 squeue -h -t R,CG 2>/dev/null)" ] && break; sleep 0.1; done
    fi
    local f pids=()
    for f in "$DIR"/run/slurmd.*.pid; do stop_one "$f" slurmd & pids+=($!); done
    wait "${pids[@]}"
    stop_one "$DIR/run/slurmctld.pid" slurmctld
    stop_one "$DIR/run/slurmdbd.pid" slurmdbd
    stop_one "$DIR/run/mariadbd.pid" mariadbd
    # job processes that outlived their step (proctrack/linuxproc loses orphans)
    local pid
    for pid in $(job_processes "SLURM_JOB_ID="); do
        kill -KILL "$pid" 2>/dev/null && say "killed left-over job process $pid" || true
    done
    say "stopped"
}

job_processes() { # job_processes TEXT: ids of processes of this cluster whose environment has TEXT
    { grep -lzxF "MINI_SLURM_DIR=$DIR" /proc/[0-9]*/environ 2>/dev/null || true; } |
        { xargs -r grep -lz "^$1" 2>/dev/null || true; } | cut -d/ -f3
}

cmd_crash() {
    local pid parent
    kill -KILL "$(cat "$DIR/run/slurmd.$1.pid")"
    rm -f "$DIR/run/slurmd.$1.pid"
    for pid in $(job_processes "SLURMD_NODENAME=$1\$"); do
        parent=$(sed -n 's/^PPid:\t//p' "/proc/$pid/status" 2>/dev/null || true)
        if [ -n "$parent" ] && grep -q '^slurmstepd' "/proc/$parent/comm" 2>/dev/null; then kill -KILL "$parent" || true; fi
        kill -KILL "$pid" 2>/dev/null || true
    done
    say "$1 has crashed"
}

cmd_boot() {
    slurmd -N "$1" >>"$DIR/log/slurmd.$1.out" 2>&1 </dev/null
}

case "${1:-}" in
    install) cmd_install ;;
    start) cmd_start ;;
    stop) cmd_stop ;;
    restart) cmd_stop; cmd_start ;;
    crash) cmd_crash "$2" ;;
    boot) cmd_boot "$2" ;;
    status) sinfo -N -o '%N %T %c %m %G'; squeue ;;
    env) echo "export SLURM_CONF='$SLURM_CONF' PATH='$DIR/bin':\"\$PATH\"" ;;
    run) shift; cmd_start; trap cmd_stop EXIT; PATH="$DIR/bin:$PATH" "$@" ;;
    *) sed -n '2,24p' "$0"; exit 2 ;;
esac
