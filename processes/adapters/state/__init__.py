"""The state folder: the files that an installation keeps on its disk, and through which its processes pass on what must
outlive them.

This is the map. It has one row for a file or a family of files; a test compares it with the folder of a running
installation (tests/house/test_house_state_folder.py). A path is typed in one place: in adapters/settings.py, or in the
module of its family here. NAME is a process (gateway-1 where it has a number), HASH a digest in hex, ID an id, HOST a
host's name, N a number. A row that ends with / is a folder. All other code writes files through durable.py.

durable: yes = synced, file and folder, before the writer goes on; sql = by SQLite's own commits; no = of use only as
long as the machine runs, or made anew. All files can be read by this user alone.

Gateways and fanouts that root starts become other users (adapters/own_user.py). Then run/ has mode 0710 and the
gateways' group, which fanouts have too: by it they read queues.key and canary.json (0640) and use queues.sock (0660).
The state folder, pulse/, gave_up/ and incidents/ have mode 0710 and the fanouts' own group, and so has what a fanout
reads (0640): the databases with their logs, operator.token, revoked, cookie.key, watchdog.json, watchdog.reserve,
wanted.json, pulses, reasons and evidence. contested/ and impersonated/ are the gateways' own; history/, codes/, guessed/, sessions/ and
signed_out/ the fanouts'. What these processes write elsewhere they opened before, so they rewrite these files in place,
and rotate their logs by copying.

Who is let in is decided by fleet.db (and operator.token, run/canary.json). `revoked` only takes away from that, so that
an older fleet.db lets nobody in who was sent away since.

    path                       | mode | written by          | read by               | durable | lifetime
    ---------------------------|------|---------------------|-----------------------|---------|-------------------------
    fleethub.toml              | any  | the operator        | everybody at start    | -       | the operator's
    operator.token             | 0600 | up                  | command line, fanout  | yes     | the installation's
    rules.toml                 | any  | the operator        | fanout, rules check  | -       | the operator's
    agent.toml                 | 0600 | up; the operator    | agent                 | yes     | the operator's
    agent.token                | 0600 | up                  | agent                 | yes     | until enrolled again
    agent.token.pending        | 0600 | agent; agent --code | agent                 | yes     | until its first use
    agent.token.code           | 0600 | agent --code        | agent --code          | yes     | until the next code
    fleet.db                   | 0600 | hub; restore, up    | hub, fanout, watchdog, command line | sql     | the installation's
    fleet.db-wal               | 0600 | SQLite              | SQLite                | sql     | while the database is open
    fleet.db-shm               | 0600 | SQLite              | SQLite                | no      | while the database is open
    fleet.db.restoring         | 0600 | restore, up --new   | restore, up --new     | yes     | one restore
    fleet.db.restoring-journal | 0600 | SQLite              | SQLite                | sql     | one restore
    fleet.db.restored          | 0600 | restore, up --new   | hub, restore, up      | yes     | until it takes its place
    epoch                      | 0600 | hub                 | hub, command line     | yes     | the installation's
    revoked                    | 0600 | hub, restore        | hub, fanout, restore  | yes     | for ever; lines are added
    incidents.db               | 0600 | watchdog            | fanout, command line  | sql     | retention.incidents
    incidents.db-wal           | 0600 | SQLite              | SQLite                | sql     | while the database is open
    incidents.db-shm           | 0600 | SQLite              | SQLite                | no      | while the database is open
    incidents/                 | 0700 | watchdog            | -                     | no      | the installation's
    incidents/ID/              | 0700 | watchdog            | -                     | no      | retention.evidence_mb
    incidents/ID/EVIDENCE      | 0600 | watchdog            | fanout, command line  | no      | its incident's
    alarms.json                | 0600 | watchdog            | watchdog, alarms      | yes     | the installation's
    history/                   | 0700 | fanout              | -                     | no      | the installation's
    history/judging            | 0600 | the fanout that judges | other fanouts     | no      | held by the kernel
    history/NAME               | 0600 | that fanout         | its successor         | no      | rewritten once a minute
    replaced/                  | 0700 | restore, up --new   | -                     | yes     | the operator's to remove
    replaced/fleet-ID          | 0600 | restore, up, hub    | restore, the operator | yes     | the operator's to remove
    log/                       | 0700 | up                  | -                     | no      | the installation's
    log/supervisord.log        | any  | supervisord         | a dead one's successor| no      | rotated
    log/supervisord.log.N      | any  | supervisord         | a dead one's successor| no      | rotated away
    log/NAME.log               | 0600 | that process        | watchdog, people      | no      | rotated
    log/NAME.log.N             | 0600 | that process        | people                | no      | rotated away
    log/NAME.out               | 0600 | supervisord         | watchdog, people      | no      | rotated
    log/NAME.out.N             | 0600 | supervisord         | people                | no      | rotated away
    run/                       | 0700 | up                  | -                     | no      | the installation's
    run/supervisord.pid        | 0600 | supervisord         | command line          | no      | while it runs
    run/supervisor.sock        | 0600 | supervisord         | watchdog, command line| no      | while it runs
    run/supervisor.sock.N      | 0600 | supervisord         | supervisord           | no      | a moment at its start
    run/queues.sock            | 0600 | queues              | everybody's links     | no      | while queues runs
    run/queues.key             | 0600 | queues              | everybody's links     | no      | new at each start
    run/pulse/                 | 0700 | everybody           | -                     | no      | the installation's
    run/pulse/NAME             | 0600 | that process        | watchdog, status      | no      | new at each start
    run/pulse/.NAME.N          | 0600 | that process        | nobody                | no      | a moment at its start
    run/lock/                  | 0700 | everybody           | -                     | no      | the installation's
    run/lock/NAME              | 0600 | its holder          | whoever wants it      | no      | held by the kernel
    run/stacks/                | 0700 | everybody           | -                     | no      | the installation's
    run/stacks/NAME.stacks     | 0600 | that process        | watchdog, successor   | no      | new at each start
    run/stacks/NAME.tasks      | 0600 | that process        | watchdog              | no      | rewritten when asked for
    run/poison/                | 0700 | everybody, watchdog | -                     | yes     | the installation's
    run/poison/NAME.json       | 0600 | that process        | itself, its successor | yes     | deaths, one day each
    run/poison/NAME.note       | 0600 | watchdog            | the successor         | yes     | until the next kill
    run/farewell/              | 0700 | everybody           | -                     | no      | the installation's
    run/farewell/NAME          | 0600 | that process        | watchdog, successor   | no      | until the next end
    run/gave_up/               | 0700 | everybody           | -                     | no      | the installation's
    run/gave_up/NAME           | 0600 | that process        | watchdog, status      | no      | until it ends in order
    run/contested/             | 0700 | gateway             | -                     | no      | the installation's
    run/contested/HOST         | 0600 | gateway             | watchdog              | no      | five minutes
    run/impersonated/          | 0700 | gateway             | -                     | no      | the installation's
    run/impersonated/HOST      | 0600 | gateway             | watchdog              | no      | five minutes
    run/guessed/               | 0700 | fanout              | -                     | no      | the installation's
    run/guessed/NAME           | 0600 | fanout              | watchdog              | no      | five minutes
    run/watchdog.json          | 0600 | watchdog            | fanout, command line  | no      | rewritten every second
    run/watchdog.reserve       | 0600 | watchdog            | fanout, command line  | no      | rewritten on a full disk
    run/wanted.json            | 0600 | command line        | watchdog, status      | no      | until the next up
    run/canary.json            | 0600 | watchdog            | gateway, fanout       | no      | new at each start
    run/cookie.key             | 0600 | fanout              | fanout                | yes     | the installation's
    run/sessions/              | 0700 | fanout              | -                     | no      | the installation's
    run/sessions/ID            | 0600 | fanout              | fanout                | no      | twelve hours, or its end
    run/signed_out/            | 0700 | fanout              | -                     | yes     | the installation's
    run/signed_out/ID          | 0600 | fanout              | fanout                | yes     | twelve hours
    run/signed_out/until       | 0600 | fanout              | fanout                | yes     | the installation's
    run/signed_out_until       | 0600 | fanout of before     | fanout                | yes     | the installation's
    run/codes/                 | 0700 | command line        | -                     | yes     | the installation's
    run/codes/HASH             | 0600 | command line        | fanout                | yes     | one use, ten minutes
    run/failpoint              | 0600 | drills              | hub                   | no      | until it strikes
    run/failpoint-watchdog     | 0600 | tests               | watchdog              | no      | until it strikes
    run/deaf                   | 0600 | drills              | gateway, fanout       | no      | until it strikes
    run/poison_row             | any  | tests               | fanout                | no      | the test's
    agent-state/               | 0700 | agent               | -                     | yes     | the agent's
    agent-state/lock           | 0600 | agent               | agent                 | no      | held by the kernel
    agent-state/journal.db     | 0600 | agent               | agent                 | sql     | the agent's
    agent-state/journal.db-journal | 0600 | SQLite          | SQLite                | sql     | one transaction
    agent-state/journal.db.damaged-ID | 0600 | agent        | the operator          | -       | the operator's to remove
    agent-state/failpoint      | 0600 | drills              | agent, its shims      | no      | until it strikes
    agent-state/runs/          | 0700 | agent               | -                     | yes     | the agent's
    agent-state/runs/HASH/     | 0700 | agent               | -                     | yes     | until its report is acknowledged
    agent-state/runs/HASH/lock | 0600 | shim                | agent                 | no      | held by the kernel
    agent-state/runs/HASH/unstarted | 0600 | agent          | shim                  | yes     | becomes started
    agent-state/runs/HASH/started  | 0600 | shim            | agent                 | yes     | its folder's
    agent-state/runs/HASH/spool    | 0600 | shim            | agent                 | yes     | its folder's
    agent-state/runs/HASH/exit     | 0600 | shim            | agent                 | yes     | its folder's
    agent-state/runs/HASH/exit.new | 0600 | shim            | shim                  | yes     | becomes exit
    agent-state/runs/HASH/cancel   | 0600 | agent           | shim                  | yes     | its folder's
    agent-state/runs/HASH/shim.err | 0600 | shim            | agent                 | no      | its folder's
    ANY.TEMPORARY              | any  | durable.py          | nobody                | no      | a moment, or until an up
"""
