"""The level of a line: sixteen kinds of logs as they are written, and what is no level."""

from __future__ import annotations

import time

import pytest

from streamkit.cli.input.levels import detect_level

KINDS = {
    "words": """
error|2026-01-01 12:00:00 ERROR cannot open
warn|[WARNING] careful
debug|DEBUG:root:x
error|CRITICAL it burns
info|INFO all good
info|no errors found
info|the word Error in a sentence
info|
info|NO_ERROR 0
info|see ERROR_LOG.txt and /var/log/ERROR/x
info|retries=3 ERROR=none
""",
    "ansi": """
error|\x1b[31mERROR\x1b[0m cannot connect
warn|\x1b[33mWARN\x1b[0m slow
error|\x1b[1m\x1b[31merror\x1b[0m: mismatched types
info|\x1b[2m2026-01-01T00:00:00Z\x1b[0m \x1b[32m INFO\x1b[0m \x1b[2mapp\x1b[0m: started
debug|\x1b[90m12:00:00\x1b[0m \x1b[34mDBG\x1b[0m loaded
error|\x1b[1;31m[E]\x1b[0m broken
""",
    "json": """
error|{"level":"error","msg":"boom"}
warn|{"time":"2026-01-01T00:00:00Z","level":"WARN","msg":"level error is not meant"}
info|{"msg":"an \\"ERROR\\" was mended","level":"info"}
error|{"severity": "CRITICAL", "message": "x"}
info|{"level":30,"time":1531171074631,"msg":"pino"}
error|{"level":50,"msg":"pino"}
debug|{"level":20,"msg":"pino"}
info|{"msg":"no level here: ERROR"}
warn|{"log.level":"warn","ecs.version":"1.6.0"}
error|{"t":{"$date":"2026-01-01"},"s":"E","c":"NETWORK","msg":"mongo"}
""",
    "logfmt": """
warn|time=1 level=warn msg="x"
error|level="fatal" msg=x
error|ts=2026-01-01T00:00:00Z caller=main.go:1 level=error err="EOF"
info|level=strange
debug|t=1 lvl=dbug level=debug msg=ERROR
""",
    "klog": """
error|E0102 03:04:05.000000       1 reflector.go:1] failed
info|I0102 03:04:05.000000       1 server.go:1] ERROR count is 0
warn|W0102 03:04:05.000000 1234 x.go:7] slow
error|F0102 03:04:05.000000 1 x.go:7] gone
error|E20260102 03:04:05.000000 1 x.cc:7] glog
""",
    "apache": """
error|[Sun Dec 04 04:47:44 2005] [error] mod_jk child workerEnv in error state 6
info|[Sun Dec 04 04:47:44 2005] [notice] workerEnv.init() ok /etc/httpd/conf/workers2.properties
warn|[Wed Oct 11 14:32:52.123 2026] [core:warn] [pid 1:tid 2] [client ::1] x
error|[Wed Oct 11 14:32:52.123 2026] [ssl:error] [pid 1] AH02032: error
info|127.0.0.1 - - [01/Jan/2026:00:00:00 +0000] "GET /error HTTP/1.1" 200 1
""",
    "nginx": """
error|2026/01/02 03:04:05 [error] 12#12: *1 open() failed
error|2026/01/02 03:04:05 [crit] 12#12: *1 SSL_do_handshake() failed
warn|2026/01/02 03:04:05 [warn] 12#12: *1 an upstream response is buffered
info|2026/01/02 03:04:05 [notice] 1#1: signal process started, error log opened
""",
    "compilers": """
error|src/a.c:3:5: error: expected expression
warn|src/a.c:3:5: warning: unused variable
info|src/a.c:3:5: note: declared here
error|src/a.c:1:10: fatal error: x.h: No such file or directory
error|error[E0308]: mismatched types
warn|warning: unused variable
error|Main.java:5: error: ';' expected
error|app.ts(5,3): error TS2322: Type 'string' is not assignable
warn|app.cs(5,3): warning CS0168: declared but never used
error|ld: error: undefined symbol: main
info|In file included from error.c:1:
info|gcc -c error.c -o error.o
error|x.py:3: error: Incompatible types in assignment
""",
    "android": """
error|03-17 16:13:38.811  1702  2395 E WindowManager: lockLifecycle error
debug|03-17 16:13:38.819  1702  8671 D PowerManagerService: acquire lock=233570404
warn|03-17 16:13:39.000  1702  2639 W ActivityManager: getRunningAppProcesses
info|03-17 16:13:39.000  1702  2639 I ActivityManager: ERROR in a message
debug|03-17 16:13:39.000  1702  2639 V Fit: computed
warn|W/ActivityManager( 1702): slow
error|2026-03-17 16:13:38.811  1702  2395 E Tag: with a year
""",
    "java": """
error|2026-01-02 03:04:05,678 ERROR [main] org.apache.X: failed
warn|17/06/09 20:10:40 WARN executor.CoarseGrainedExecutorBackend: slow
info|081109 203615 148 INFO dfs.DataNode$PacketResponder: PacketResponder 1 for block terminating
warn|2015-10-18 18:01:51,650 WARN [main] org.apache.hadoop.mapreduce: ERROR seen
error|Exception in thread "main" java.lang.NullPointerException
error|java.lang.IllegalStateException: x
error|SEVERE: Servlet.service() threw exception
info|\tat org.apache.X.y(X.java:5)
warn|2015-07-29 17:41:44,747 - WARN  [QuorumPeer[myid=1]/0:0:0:0:0:0:0:0:2181] - connection broken
error|2026-01-02 03:04:05.678 ERROR 1 --- [main] o.s.boot.SpringApplication : failed
""",
    "python": """
error|Traceback (most recent call last):
error|ValueError: bad
error|requests.exceptions.ConnectionError: refused
warn|WARNING:urllib3.connectionpool:Retrying
warn|/usr/lib/x.py:3: DeprecationWarning: WARNING old
info|  File "x.py", line 3, in <module>
error|2026-01-02 03:04:05,678 - root - ERROR - x
""",
    "syslog": """
error|<11>Jan  1 00:00:00 host app: x
warn|<12>Jan  1 00:00:00 host app: x
debug|<191>1 2026-01-01T00:00:00Z host app - - - x
info|Jun 14 15:16:01 combo sshd(pam_unix)[19939]: authentication failure; logname= uid=0
info|Jun 15 02:04:59 combo kernel: audit: initialized (error limit 5)
""",
    "databases": """
error|2026-01-01 00:00:00.000 UTC [1] ERROR:  relation "x" does not exist at character 15
info|2026-01-01 00:00:00.000 UTC [1] LOG:  database system is ready
error|2026-01-01 00:00:00.000 UTC [1] FATAL:  password authentication failed
warn|2026-01-01T00:00:00.000000Z 0 [Warning] [MY-010068] [Server] CA certificate is self signed
error|2026-01-01T00:00:00.000000Z 0 [ERROR] [MY-012574] [InnoDB] Unable to lock
""",
    "openstack": """
info|nova-api.log.1 2017-05-16 00:00:00.008 25746 INFO nova.osapi_compute.wsgi.server [req-3] "GET"
warn|nova-compute.log 2017-05-16 00:00:04.500 2931 WARNING nova.virt.libvirt.imagecache [req-a] x
error|nova-compute.log 2017-05-16 00:00:04.500 2931 ERROR oslo_service.periodic_task [req-a] x
""",
    "go and rust": """
error|panic: runtime error: index out of range
error|thread 'main' panicked at src/main.rs:2:5:
warn|2026-01-01T00:00:00.000Z  WARN my_crate::module: slow
error|2026-01-01T00:00:00.000Z\tERROR\tx/y.go:3\tfailed\t{"id": 1}
debug|[GIN-debug] Listening and serving HTTP on :8080
info|2026/01/01 00:00:00 listening on :8080
""",
    "supercomputers": """
info|- 1117838570 2005.06.03 R02-M1 RAS KERNEL INFO instruction cache parity error corrected
error|- 1117838573 2005.06.03 R02-M1 RAS KERNEL FATAL data TLB error interrupt
info|2016-09-28 04:30:30, Info                  CBS    Loaded Servicing Stack v6.1
error|2016-09-28 04:30:31, Error                 CBS    Failed to get next element
""",
}


@pytest.mark.parametrize("kind", KINDS)
def test_detect_level(kind: str) -> None:
    wrong = []
    for sample in KINDS[kind].strip("\n").split("\n"):
        want, _, line = sample.partition("|")
        if detect_level(line) != want:
            wrong.append((want, detect_level(line), line))
    assert not wrong


def test_a_level_far_into_the_line_is_the_messages() -> None:
    assert detect_level("x" * 300 + " ERROR too far") == "info"
    assert detect_level("nothing", "warn") == "warn"


def test_hostile_lines_take_no_longer() -> None:
    started = time.thread_time()
    for start in ("[", "<", "a:", '{"level":', "error " * 50, "\x1b[" * 200, "a(1,", " " * 500):
        for _ in range(20):
            detect_level(start * 20_000)
    assert time.thread_time() - started < 5
