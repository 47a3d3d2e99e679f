#!/bin/busybox sh
# The first process of the guest. It runs the steps and writes what they say to the second serial port; what to
# make of it is judged outside. A line that begins with "== " is the frame: step, said (standard error), exit, end.
export PATH=/bin TMPDIR=/tmp
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
stty -F /dev/ttyS1 raw
exec >/dev/ttyS1 </dev/null
cd /tmp

step() {
    echo "== step $1"
    shift
    "$@" 2>/tmp/said
    code=$?
    sed 's/^/== said /' /tmp/said
    echo "== exit $code"
}

# Waits until file $1 has text $2.
await() {
    for _ in $(seq 600); do
        grep -q "$2" "$1" && return 0
        usleep 100000
    done
    echo "no '$2' in $1 after a minute:" >&2
    cat "$1" >&2
    return 1
}

# Starts the embedded ensemble; it ends when file descriptor 3 is closed.
ensemble() {
    [ -p /tmp/hold ] || mkfifo /tmp/hold
    # Of the ensemble before, which is gone.
    : >/tmp/roll
    termite-probe demo-ensemble "$@" </tmp/hold >/tmp/roll 2>/tmp/ensemble &
    exec 3>/tmp/hold
    await /tmp/roll leader
}

# The process of server $1.
pid_of() {
    sed -nE "s/.*\"pid\":([0-9]+),\"quorum_port\":[0-9]+,\"sid\":$1\}.*/\1/p" /tmp/roll
}

symbols() {
    grep -oE '__tracepoint_[a-z0-9_]+$| (tcp|sock|bpf_iter)_[a-z0-9_]+$' /proc/kallsyms | sort -u
}

# The followers stand still for 150 ms, one after the other, four times each, while the probe watches. The servers end
# before it does.
fault() {
    ensemble || return 1
    termite-probe trace --slower 50ms --json >/tmp/trace 2>/tmp/traced 3>&- &
    probe=$!
    await /tmp/traced '(pid ' || return 1
    sleep 2
    for sid in 1 2; do
        for _ in 1 2 3 4; do
            kill -STOP $(pid_of $sid)
            usleep 150000
            kill -CONT $(pid_of $sid)
            usleep 850000
        done
    done
    exec 3>&-
    sleep 2
    kill -INT $probe
    wait $probe || return 1
    cat /tmp/trace
}

# The same traffic seen by tracepoints and by function hooks: two probes at a time, and how often the kernel passed
# over a program because another task was inside it on the same CPU.
delays() {
    ensemble --rate 50 || return 1
    probes=
    for way in tracepoints functions; do
        option=
        [ $way = functions ] && option=--functions
        termite-probe trace --slower 0 --json $option >/tmp/$way 2>/tmp/$way.said 3>&- &
        probes="$probes $!"
        eval "$way=$!"
    done
    await /tmp/tracepoints.said '(pid ' && await /tmp/functions.said '(pid ' || return 1
    sleep 6
    for way in tracepoints functions; do
        eval "pid=\$$way"
        cat /proc/$pid/fdinfo/* 2>/dev/null |
            awk -v way=$way '/^recursion_misses/ { sum += $2 } END { print "passed-over", way, sum + 0 }'
    done
    kill -INT $probes
    for probe in $probes; do
        wait $probe || return 1
    done
    exec 3>&-
    for way in tracepoints functions; do
        sed -nE "s/.*\"vantage\":\"([a-z]+)\",\"sid\":([0-9]+),.*\"zxid\":\"0x([0-9a-f]+)\",\"delay_ns\":([0-9]+),.*/$way \1 \2 \3 \4/p" /tmp/$way
    done
}

# The wall clock goes back by an hour, on by two and back again, and a CPU goes away and comes back, while the probe watches.
# What was done, then instant and delay of each proposal, then the summary.
disturbed() {
    ensemble --rate 50 || return 1
    termite-probe trace --slower 0 --json >/tmp/disturbed 2>/tmp/disturbed.said 3>&- &
    probe=$!
    await /tmp/disturbed.said '(pid ' || return 1
    sleep 1
    for change in -3600 7200 -3600; do
        date -s @$(($(date +%s) + change)) >/dev/null || return 1
        echo "clock $change $(cut -d ' ' -f 1 /proc/uptime)"
        sleep 1
    done
    for online in 0 1; do
        echo $online >/sys/devices/system/cpu/cpu1/online || return 1
        echo "cpu1 $online $(cut -d ' ' -f 1 /proc/uptime)"
        sleep 1
    done
    exec 3>&-
    sleep 2
    kill -INT $probe
    wait $probe || return 1
    sed -nE 's/.*"kind":"proposal".*"mono_ns":([0-9]+),.*"delay_ns":([0-9]+),.*/proposal \1 \2/p' /tmp/disturbed
    grep '"kind":"summary"' /tmp/disturbed
}

# What a client sends: a session, and creations of /a with a number, each the same bytes. Some twenty a second.
writes() {
    # length 45; version, last zxid, 30 s, session, 16 bytes of password, not read-only
    printf '\0\0\0\055\0\0\0\0\0\0\0\0\0\0\0\0\0\0\165\060\0\0\0\0\0\0\0\0'
    printf '\0\0\0\020\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
    for _ in $(seq 2000); do
        # length 53; xid 1, create, path, data, one right for all, sequential
        printf '\0\0\0\065\0\0\0\001\0\0\0\001\0\0\0\002/a\0\0\0\004data'
        printf '\0\0\0\001\0\0\0\037\0\0\0\005world\0\0\0\006anyone\0\0\0\002'
        usleep 50000
    done
}

# The mode of real server $1; nothing while it has none.
mode_of() {
    echo srvr | nc -w 2 127.0.0.1 218$1 2>/dev/null | sed -n 's/^Mode: //p'
}

# A real ensemble on interpreted JVMs; one follower stands still for half a second, four times.
real() {
    cd /java
    jars=$(ls jars/*.jar | tr '\n' ':')
    for sid in 1 2 3; do
        jre/bin/java -Xint -XX:+UseSerialGC -Xmx64m -Dzookeeper.admin.enableServer=false \
            -Dzookeeper.jmx.log4j.disable=true -Dlog4j.configuration=file:/java/log4j.properties \
            -cp "$jars" org.apache.zookeeper.server.quorum.QuorumPeerMain servers/$sid/zoo.cfg >/tmp/server-$sid 2>&1 &
        echo $! >/tmp/pid-$sid
    done
    for _ in $(seq 100); do
        sleep 1
        modes="$(mode_of 1)-$(mode_of 2)-$(mode_of 3)"
        case $modes in
        leader-follower-follower | follower-leader-follower | follower-follower-leader) break ;;
        esac
    done
    leader=
    for sid in 1 2 3; do
        [ "$(mode_of $sid)" = leader ] && leader=$sid
        [ "$(mode_of $sid)" = follower ] && follower=$sid
    done
    if [ -z "$leader" ]; then
        echo "no leader ($modes)" >&2
        cat /tmp/server-* >&2
        return 1
    fi
    writes | nc 127.0.0.1 218$leader >/dev/null &
    termite-probe trace --slower 50ms --json >/tmp/trace 2>/tmp/traced &
    probe=$!
    await /tmp/traced '(pid ' || return 1
    sleep 2
    for _ in 1 2 3 4; do
        kill -STOP $(cat /tmp/pid-$follower)
        usleep 500000
        kill -CONT $(cat /tmp/pid-$follower)
        usleep 1500000
    done
    kill -INT $probe
    wait $probe || return 1
    echo "stopped $follower"
    # How the stops of the three JVMs are seen.
    termite-probe doctor --json | sed -n 's/.*"safepoints": "\(.*\) of .*/\1/p' | sort | uniq -c | sed 's/^ *//'
    echo trace
    cat /tmp/trace
}

complaints() {
    dmesg | grep -E 'BUG:|WARNING:|Oops|Call Trace|general protection'
    return 0
}

step kernel uname -r
step symbols symbols
step doctor termite-probe doctor --json
step doctor-functions termite-probe doctor --json --functions --irq
step fault fault
grep -q __tracepoint_sock_recv_length /proc/kallsyms && step delays delays
step disturbed disturbed
[ -d /java ] && step real real
step complaints complaints
echo "== end"
# What was written is still on its way through the serial port: changing its settings waits for that.
stty -F /dev/ttyS1 raw
poweroff -f
