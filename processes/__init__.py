"""fleethub: a hub for fleets of bare-metal servers that cannot freeze unnoticed and loses no command. This is the
manual.

The story it answers
    A hub froze one evening: an agent disconnected, the loop took a lock that it already held, and stopped for ever. Its
    health endpoint ran elsewhere and stayed green; commands that operators gave vanished without a word. Here the loop
    cannot be blocked by sockets, database, slow browsers or a full queue, for they live elsewhere; a loop that stops is
    found in seconds by its progress, with the stack that shows where, and replaced; what was acknowledged is on disk
    before that was said; and agents and operators stay connected meanwhile.

The picture

     fleet servers                                                        people
   ┌──────────────┐                                              browser · CLI · Prometheus
   │ agent        │                                                      ▲   │
   └──────────────┘                                                      │   ▼
        ▲   │ WebSocket                                        WebSocket │ HTTP
        │   ▼                                                            │   │
   ┌──────────────┐  events   ┌────────┐  events    ┌─────┐   requests  ┌──────────────┐
   │ gateway × N  │ ────────▶ │        │ ─────────▶ │     │ ◀────┐      │ fanout × N   │
   │ agents'      │           │ queues │            │ hub │      └───── │ operators'   │
   │ sockets      │ ◀──────── │        │ ◀───────── │     │ ──────────▶ │ sockets      │
   └──────────────┘ deliveries└────────┘ deliveries └─────┘  broadcasts └──────────────┘
          │ pulse                 │ pulse              │ pulse + SQLite        │ pulse
          └───────────────────────┴────────┬───────────┴──────────────────────┘
                                           ▼
                                     ┌──────────┐  XML-RPC   ┌─────────────┐
                                     │ watchdog │ ─────────▶ │ supervisord │ ── starts and restarts them all
                                     └──────────┘            └─────────────┘

   All four arrows of the hub run through `queues`.

The rooms
    Paths in this manual are below processes/. travels/, records/ and shown/ are in core/, page/ is in fanout/; a file
    without a path is in the room that was named last.

    A process is processes/NAME (what it does: sockets, files, threads) and processes/core/NAME (what it decides:
    pure, so the same input gives the same output). Each of the six that supervisord runs has __main__.py (opens its
    resources from left to right and closes them from right to left) and loop.py (the order of one turn). Who has read
    one has read all. Who may import whom stands in tests/house/test_house_imports.py: no process imports another, and
    an import only ever points down this list.

    queues    The bounded, replayable queues between the others. Knows nothing of the fleet. Its memory may be lost at
              any time: everything in it is repaired end to end. core/queues: bounded_queue (what is kept, refused and
              replayed; what is a gap).
    hub       The truth: hosts, commands, runs. One loop, one writer of the database, no socket of a network.
              core/hub: step.py (one event in, effects out), memory.py (tables and drafts), turn.py (what waits, what is
              refused, what may be acknowledged), requests, delivery, presence, pace, runs, foreign, flood;
              operator_tokens, host_tokens and enrolment_codes (who is let in, and for how long).
    gateway   The agents' WebSockets. Knows who is connected, keeps no truth.
              core/gateway: admission (who is let in), code_offers, agent_connection (what frames mean), intake (who is
              paused or slowed), outbox (what waits for the hub), token_table, census, delivery_log.
    fanout    The operators' WebSockets, HTTP API, page and metrics, from a replica of the truth. Works while the hub is
              away. fanout/page is plain ES modules, one for each view, without a build step; it never puts in markup.
              One of them judges the hosts (judging.py): core/conditions.
              core/fanout: mirror (follows the hub), feed (what one subscriber is sent), history, signin, health,
              http_head (what is refused before it is parsed).
    watchdog  Judges the others by their pulses and by a canary command that goes all the way round; collects evidence,
              kills through supervisord, keeps the incidents, raises alarms, and answers to systemd for the whole.
              core/watchdog: verdict, second_witness, remedy, incident_lifecycle, incident (one of them), restarts,
              sd_notify. core/alarms: who is told what.
    agent     One fleet server. Runs only what its own file lists, each command in a shim that outlives it, and reports
              until its report is acknowledged. core/agent: step, effects, remembered, flow, reconnect, reboot (when
              a command has ended that reboots its own machine).
    cli       What a person types. verbs/ (one file a group of verbs), machine/ (starts and ends processes of this
              machine), checks/ (of `doctor`), terminal/ (what is shown and asked), drills/ (failures rehearsed).
              core/cli: drills (what each must show), rollback (what a restored backup means), folding (identical
              output, once), tables (what a terminal has room for), waiting (why a command waits).
    client    What a Python program uses to talk to a hub: `from fleethub import open_remote`. The command line uses it.
    adapters  The hands that several processes share: settings, links to the queues, logs, clocks, WebSockets;
              adapters/state is the state folder; adapters/bootstrap.py starts and ends every process;
              adapters/rights.py takes root's capabilities from gateway and fanout, and adapters/own_user.py makes
              each a user of its own, whom core/queues/lesser_calls.py lets say what its kind says; tls_keeper.py reads
              the key that they then cannot read.
              adapters/supervisord_plugin.py has supervisord make sockets for IPv6; adapters/own_process.py ends a
              process; adapters/machine is what is done on a server for its agent (code, unit).
    core      Shared by all of the above: values.py, errors.py and budgets.py (what one client may send); travels/ (all
              messages, frames and request bodies), records/ (what is kept: command, run, host, dead letter …), shown/
              (how it looks from outside).

The state folder, the second bus
    What must outlive a process, or reach one that is not up yet, goes through files. adapters/state/__init__.py is the
    map: every file, who writes it, who reads it, whether it is synced, its mode, its lifetime.

    hub ─────────── fleet.db (all of it, and who is let in) ───▶ fanout, watchdog, command line; its own successor
    hub ─────────── epoch (the newest that began here) ────────▶ command line; its own successor
    hub ─────────── revoked (tokens, good nowhere again) ──────▶ fanout, restore; its own successor
    each process ── run/pulse, run/stacks, run/farewell ───────▶ watchdog; its own successor
    each process ── run/gave_up (why it cannot go on) ─────────▶ watchdog, command line
    each process ── run/poison ────────────────────────────────▶ its own successor
    watchdog ────── run/watchdog.json, incidents ──────────────▶ fanout, command line
    watchdog ────── run/canary.json (tokens of its canary) ────▶ gateway, fanout
    watchdog ────── run/poison/NAME.note (before a kill) ──────▶ the successor of whom it kills
    watchdog ────── alarms.json (what was told to whom) ───────▶ its own successor
    gateway ─────── run/contested, run/impersonated ───────────▶ watchdog
    fanout ──────── run/guessed ───────────────────────────────▶ watchdog
    fanout ──────── run/sessions, signed_out, cookie.key ──────▶ every fanout
    the operator ── rules.toml ────────────────────────────────▶ the fanout that judges, command line
    fanout ──────── history ───────────────────────────────────▶ its own successor
    agent ───────── agent.token.pending (its next token) ──────▶ its own successor
    agent --code ── agent.token.code (which code it had) ──────▶ agent --code, typed again
    command line ── run/codes (one-time sign-in) ──────────────▶ fanout
    command line ── run/wanted.json (what is to run) ──────────▶ watchdog

    Whatever is written by hand goes through adapters/state/durable.py: a file is the old one or the new one, whatever
    fails, and a disk that is full is said to the one who asked.

A heartbeat's way
     1. agent/loop.py takes the numbers from metrics.py; core/agent/step.py puts them into a frame (a Heartbeat of
        travels/agent_frames.py) when one is due; agent/link.py sends it.
     2. gateway/agent_socket.py receives it (adapters/websocket.py and frame_reader.py read), and travels/shape.py
        bounds it. core/gateway/agent_connection.py makes it a row of travels/messages.py: at once, if it has nothing
        but what heartbeats usually have, else by way of a HeartbeatReceived.
     3. core/gateway/intake.py enters the row in outbox.py, which keeps the newest of each host: the first goes at once,
        those behind it within 30 ms go together.
     4. gateway/loop.py appends them to `events` as HeartbeatsReceived, up to a hundred hosts in one item
        (adapters/queue_link.py → queues/server.py → core/queues/bounded_queue.py; what any engine of the queues
        promises is in adapters/queues.py).
     5. hub/loop.py reads the item, and core/hub/turn.py has it stepped behind hub/barrier.py. core/hub/beats.py takes
        all that change nothing but metrics and the time they were heard, without a draft; any other goes alone by
        step.py to presence.py, and memory.py says what operators see of it.
     6. hub/publisher.py puts what was taken at once into `broadcasts` as one HostsHeard. (A hub and a fanout say
        whether they know these batches, in TokensPiece and SnapshotWanted; one of a version before gets each alone.)
     7. fanout/loop.py follows `broadcasts` with core/fanout/mirror.py, which keeps it beside the rows undecoded
        (shown/replica.py). fanout/subscribers.py sends it on, as core/fanout/feed.py says.
     8. In the browser page/link.js receives it, page/store.js enters it in the row of its host, and page/fleet.js and
        page/host.js show that; page/place.js keeps in the address what is looked at. A rule about metrics finds them
        in the host's record (memory.hosts), decoded.

A command's way
     1. `fleethub run` (cli/verbs/run.py, client/api.py) POSTs a run to /api/v1/runs, even for one operation on one
        host. The page (page/commanding.js) POSTs that one to /api/v1/commands, and all else as a run.
        fanout/operations.py has the routes, fanout/change_api.py the endpoints, and travels/operator_requests.py the
        bodies with their limits.
     2. fanout/requests.py appends a RequestReceived to `events`, with a deadline, and waits for the answer.
     3. core/hub/requests.py accepts or refuses it. A run is carried on by core/hub/runs.py (`advance`): it begins
        hosts, and is called again when one of the run's commands has ended. For a run as for a single command
        core/hub/commands.py makes the command: queued.
     4. core/hub/delivery.py sends what a host can get now: sent, a DeliverCommand. hub/store.py commits both, and only
        then hub/publisher.py answers the fanout (202) and puts the delivery into the gateway's queue. Its answer about
        a run only counts the hosts; fanout/read_api.py (`with_hosts`) adds them from the database.
     5. gateway/gate.py writes the frame to the host's connection, or answers Undelivered.
     6. core/agent/step.py journals it (agent/journal.py, fsynced), acknowledges it, journals that it is launched, and
        only then has agent/runner.py start agent/shim.py. The hub hears AckReceived: running.
     7. The shim spools output and exit status to its folder; agent/folder.py reads them, core/agent/flow.py sends what
        may be under way. The hub keeps output (OutputReceived) and end (StatusReceived): succeeded, failed ….
     8. After the commit the hub acknowledges to the agent (DeliverAck), which forgets the command, and tells fanouts.
     9. fanout/subscribers.py and fanout/outputs.py show it to whoever watches; client/follow.py waits for it.
    `queued → sent → running → succeeded | failed | rejected | expired | cancelled | lost` is core/records/command.py.
    "Accepted" is said after the commit. Delivery is at least once; the agent's journal makes it run at most once.
    `lost` is said when nobody can know whether it ran, and never guessed to be a success; a late report may still end
    it, once.

A freeze's way
     1. hub/loop.py writes the pulse at the end of each turn: run/pulse/hub (adapters/state/pulse_file.py). The hub
        freezes, and the number of turns there stands still.
     2. watchdog/loop.py turns ten times a second (twice, while all is well). watchdog/process_reader.py reads pulses
        and the kernel's figures, and core/watchdog/verdict.py judges: frozen, after watchdog.stall_s without a turn
        (2 s), unless the hub was starved of CPU (for 30 s at most) or the watchdog was away itself. remedy.py says:
        kill.
     3. watchdog/loop.py opens an incident (core/watchdog/incident_lifecycle.py; incident_log.py and incident_store.py
        of watchdog/ write it to incidents.db). watchdog/evidence.py collects stacks, tasks, /proc and logs for 1 s at
        most. A hub that has turned meanwhile is left alone.
     4. watchdog/kill_note.py notes which event the hub had in hand, if any. watchdog/restart.py has supervisord kill
        the hub (adapters/supervisor.py), or kills it itself if supervisord does not answer. The death wakes the
        watchdog, which pokes supervisord, so that the successor is started at once. (A hub that dies by itself comes in
        here.)
     5. adapters/bootstrap.py takes the lock run/lock/hub. Before it writes a pulse of its own it examines how the
        predecessor ended (adapters/state/deaths.py), and counts that against the event in hand (see Poison).
     6. hub/__main__.py begins a new epoch (hub/store.py, in the database and in `epoch`) and restores the memory
        (core/hub/step.py, `restore`). Hosts are stale until they are heard of. `events` is read from the position that
        the database knows.
     7. hub/publisher.py says HubStarted to all. Gateways answer with a census (gateway/gate.py,
        core/gateway/census.py), and core/hub/presence.py learns from it who is connected. Fanouts ask for a snapshot
        (core/fanout/mirror.py), show the old rows until it is whole, and append their open requests again
        (fanout/requests.py).
     8. The incident is over when the hub turns and a round of the canary that began since then is complete
        (core/watchdog/incident.py, `is_over`; watchdog/canary.py). The ledger is read once more: whatever was accepted
        before is still in it.
    queues, gateway, fanout and agent take the same way, 6 and 7 aside. So does a gateway or fanout that turns and is
    deaf: at the end of each turn it notes how many connections it has accepted and how many wait in the kernel's queue
    of its listening socket (adapters/accepts.py). What waits for watchdog.stall_s and six turns, while it accepts none,
    makes it deaf. Whoever accepts is not, be it to close at once because there are too many. The canary knocks at both
    ports with fresh connections, so that something waits where nobody is let in; it cannot tell who of several that
    share a port is to blame, and only says which port answers (watchdog/canary.py).
    What the budget does (five kills in a minute), and what is only the consequence of another's trouble, is in
    core/watchdog/remedy.py.

When something is due
    A host is due when it registers, or when one of its commands is made or moves (memory.due); a run is due when it
    begins, or when one of its commands ends (memory.due_runs: the hosts of these commands, so that nobody looks at all
    hosts of a run; core/hub/runs.py takes a hundred in one step). Both are marks, not work: core/hub/step.py's `due`
    lists them at the end of a turn, and only while no commit is under way, for what follows must be written. A timer of
    the memory is over (`elapsed`) in the same way: a queued command expires, a sent one is sent again, silence ends
    one.

While the disk is slow, locked or full
    At most one batch is in commit. Meanwhile events that need no disk go on, and the others are parked. When it lasts
    for more than a second, requests are refused aloud (503 storage_blocked) and reports are left unacknowledged
    (agents send them again). The pulse records the last refused position, so that the next hub, which reads the same
    requests again, refuses them again. core/hub/turn.py has all of it.

When the database is not what it was
    A hub begins only with a database that knows every hub that ran here (core/records/beginning.py): not with one that
    was removed, emptied, lost its log or is an older copy, and not with a schema that is not ours (adapters/state/
    fleet_schema.py, which also brings an older version up to date). It says why and ends (adapters/state/gave_up.py).
    While it runs it looks at the inodes of the database and its log before and after each commit (hub/sqlite_store.py).
    cli/machine/replacement.py puts another database in the place of the one that is there: `restore`, `up --new`.
    What is forgotten by age, here and in an agent's journal, goes by a time that has lasted, never by one reading of
    the wall clock (core/records/lasting_time.py).

Poison
    The event in hand stands in the pulse only while it is stepped. A process that finds its predecessor dead with an
    event in hand counts that death against the event (core/records/poison.py), unless somebody from outside killed
    it. An event that ended two processes is put aside unstepped, as a dead letter (core/records/dead_letter.py); a
    row that ended two fanouts is left out of what is shown. An agent whose events keep being put aside, or of which
    two different events ended hubs, is suspended (core/hub/flood.py) until an operator lifts it.

Labels and queries
    core/labels.py has what a label may be, core/hub/labels.py sets the hub's; an agent's own come with its register and
    change nothing. core/shown/query.py is the language that finds hosts, and page/query.js reads the same. A fanout
    finds them in the rows that it shows (fanout/host_finder.py) and sends the hub their names with the query's text;
    the hub never reads a query. Saved ones are its table `queries` (core/hub/saved_queries.py).

Who is let in
    Every credential is a random secret, of which the hub has the SHA-256 alone. Operators' tokens are rows of the
    database (core/hub/operator_tokens.py); fanout/state_folder.py reads them twice a second, and fanout/auth.py judges
    them by the clock, so one that has expired is good no more even while the disk is silent. A host's token is in its
    record; gateways have a copy of that table (core/gateway/token_table.py), and while it may lack something nobody is
    called unknown. What was ever made void is also in `revoked` beside the database
    (adapters/state/revocations.py). Whatever of this cannot be read is
    as it was last known; what was never known lets nobody in.
    A host gets its token in one of three ways. `enroll` prints one. `enroll --code` prints a code for one use: the
    command line on the host (adapters/machine/code_exchange.py) makes the token, offers its hash with the code at the
    agents' port (GET /enroll, gateway/enrolment.py), and the hub judges it (core/hub/enrolment_codes.py). `enroll
    --rotate` has the host's agent make its next one (core/hub/host_tokens.py, agent/link.py). In the last two nobody
    sees the token, it is on the host's disk before the hub hears of it (adapters/state/agent_token.py), and asking
    twice does the same as once: so neither a kill nor a lost answer leaves a host without a token that is good.
    Two agents with one token replace each other. A boot or a journal that registers again after another one did proves
    that the machine was copied, which is an alarm (core/gateway/roster.py).
    A host needs no installation of fleethub. GET /agent at the operators' port (fanout/agent_download.py) is one file
    for sh: agent/head.sh finds a Python, agent/unpack.py makes the program in a folder of its own and tries it,
    agent/install.py exchanges the code and names the program by one rename. It carries the modules that the agent
    imports, found by their imports, so these run on Python 3.9 too (core/older_python.py), with few libraries: this
    installation's own for the same Python and machine, else those that agent/requirements.txt pins.
    A browser's session belongs to the token that made it. What operators.fresh_for names, a session may only do within
    operators.fresh_s of its sign-in (fanout/web.py); a token signs in with each request, so it is not asked.

One client and all the others
    core/budgets.py has how much one client may send over its WebSockets (frames, bytes and heartbeats a second) and
    what follows if more comes. How large one message may be stands with its type (travels/; an operator's frame in
    fanout/subscribers.py), how much of a host may wait in core/gateway/outbox.py (Bounds), how often an address
    may offer an enrolment code in core/gateway/code_offers.py. HTTP requests have allowances by credential and by
    address (fanout/request_budget.py). Connections are counted from their accept on, before TLS (adapters/listener.py),
    and core/connections.py says which one goes when there are too many: those that have said nothing yet, the oldest of
    the address that has most; those that are known are bounded by client, and the last of the room is kept for the
    canary and this installation's own token. fanout/server.py has deadlines for what follows a request's head.
    adapters/websocket.py reads connections by turns, a share of each, for 10 ms of all turns in one pass of a loop
    (Pacer), and at once while nobody waits for a turn and that time is not over; whoever has said less has the next
    turn (core/turns.py), and in core/gateway/fair_lane.py the next place on the way to the hub. All keepalives have one
    timer (adapters/wheel.py). fanout/server.py parses HTTP by turns too. core/gateway/intake.py charges what was read
    to its host's allowance, fanout/subscribers.py to the operator's credential. Beyond it the connection rests; valid
    heartbeats that the hub has not taken when the next one of their host comes are conflated (core/gateway/outbox.py);
    for anything else it is closed in the end (1008), refused for 30 s (429), and after three closes in ten minutes the
    hub suspends the host (HostFlooded, core/hub/flood.py). Reports and heartbeats wait in their gateway while the hub
    has enough to do (`bulk_items_max` in travels/queue_calls.py), so that an operator's request never waits long behind
    them. How often agents send heartbeats the hub tells them (core/hub/pace.py). What shape a message may have is
    decided in travels/shape.py, before anything else looks at it, on both ports.

Conditions of hosts
    The fanout that holds the lock history/judging feeds core/conditions/judge.py with what its mirror takes, and once a
    second takes what has changed (fanout/judging.py). rules.py says what is worth a word, signs.py whether a host is so
    now, dwelling.py has what is so and does not stand yet, beginnings.py makes it stand, alone or as one condition of
    many with one cause (causes.py), standing.py has what stands. A change goes to the hub as ConditionsJudged, whole,
    again and again until the mirror shows it; core/hub/kept_conditions.py keeps it, and what is over stays over. The
    hub judges nothing and reads no query. Acknowledgements and silences are requests; the judge applies silences.
    Nothing begins or ends while the watchdog's report says that the house is not well (House in judge.py).
    The watchdog reads the conditions that stand from the database (watchdog/alarm_facts.py), core/alarms/hosts.py says
    which are told, core/alarms/outbox.py to whom (Wish); its report names the installation's own conditions, so that a
    fanout lists all of them (fanout/condition_api.py). watchdog/heartbeat.py calls the dead man's switch.

The audit trail
    core/travels/audit.py has its lines. The hub writes each in the transaction of what it tells of (hub/store.py,
    adapters/state/audit_trail.py), behind a hash of the line before: the lines are a chain without gaps. They go only
    from the oldest on; a checkpoint in the database has number and hash of the last that went. core/travels/
    audit_chain.py computes all of it again (`fleethub audit verify`). Number and hash of the newest line go out with
    each alarm. What was refused at the operators' port is counted in memory (core/fanout/tally.py) and costs a bounded
    number of lines; agents that claim another host's name come through core/gateway/impersonation.py. Both are alarms,
    by way of run/guessed and run/impersonated (adapters/state/sightings.py).

More than one machine
    With `store.url` the truth is in PostgreSQL (adapters/postgres, imported only then). Each machine has a process hub.
    One leads: adapters/postgres/lease.py has its lease, a row of the database, which each of its transactions renews
    by its last statement, the fence. The others turn and stand by (verdict `standby`), and take over `hub.lease_s`
    after its last sign of life. A hub that thaws after that cannot commit, and ends itself. hub/postgres_store.py
    settles what a lost connection left open. It acknowledges only positions that are committed, and leaves the requests
    that stood in `events` when it took over from another machine, for those who asked ask it again.

How to add
    an engine of the  adapters/queues.py is what it promises, tests/adapters/test_adapters_queues.py the contract that
    queues            it passes: give tests/doubles/queue_engines.py a house for it, and
                      adapters/queue_engine.py its place in the settings. PostgreSQL's is in adapters/postgres/:
                      queue_schema.py has the tables and functions of the database, queue_line.py a connection and its
                      thread; core/queues/packs.py says what a read makes of the rows.
    a request         travels/operator_requests.py (body, limits), travels/messages.py (the type in `Request`),
                      core/hub/requests.py (a case and its function), fanout/change_api.py and operations.py (endpoint,
                      route, who may), client/api.py, a verb in cli/verbs/.
    a durable state   its record in core/records/ (a new field has a default: older rows lack it), a Table in
                      core/hub/memory.py, its Rows in hub/store.py, its table in a new entry of MIGRATIONS in
                      adapters/state/fleet_schema.py (released entries never change), its reader in fleet_db.py,
                      its table for PostgreSQL under the same version in adapters/postgres/schema.py,
                      `_prune` in hub/store.py if its rows are to go some day; then put and get it in the step that
                      needs it. A backup has the whole file; core/cli/rollback.py and cli/verbs/restore.py say what a
                      restore makes of it.
    a field of a host if its agent says it: travels/agent_frames.py (Register or Heartbeat) and core/agent/step.py.
                      core/records/host.py (HostRecord is kept, and a new field of it has a default; Link is volatile),
                      core/shown/views.py (HostView and `host_view`), the list of fields in core/hub/memory.py by which
                      `_publish_host` knows whether it must be on disk before it is shown, and the step that sets it;
                      page/host.js and cli/verbs/fleet.py show it.
    a message from    travels/agent_frames.py (the frame, AgentFrame, FRAME_TYPES), core/gateway/agent_connection.py
    agents            (its meaning, AgentSaid), travels/messages.py (its event, in the union FromGateway),
                      core/hub/step.py (a case; `said_once` if nobody sends it again, `put_aside` if its agent
                      waits for an answer); core/agent/step.py sends it.
    an audit line     core/travels/audit.py (its Kind, and the word for what happened); AddAudit in the hub's step, or
                      fanout/audit_notes.py, if only a fanout knows.
    a setting         adapters/settings.py, in the section's Struct; if the core decides by it, core/hub/rules.py too.
    a metric          fanout/metrics.py; of a process's own numbers also a field of travels/pulse.py, set by that loop.
    a verdict         core/shown/status.py (Verdict, and `judged`: what it means for the whole),
                      core/watchdog/verdict.py (when; while no watchdog runs, adapters/state/status_file.py judges),
                      core/shown/troubles.py (its sentence, and what to do), page/words.js (STATES, MEANS),
                      remedy.py (what is done), incident_lifecycle.py and sd_notify.py (whether that is well);
                      core/fanout/health.py; core/alarms/conditions.py and
                      monitoring/prometheus-alerts.yml if somebody is to be told; page/picture.js (WORST),
                      page/link.js (whether such a hub is believed);
                      cli/terminal/output.py (STYLES), cli/verbs/fleet.py, cli/machine/supervision.py.
    a trouble         core/shown/troubles.py (its code, what it means, what to do: status, page, API, alarms and
                      docs/troubleshooting.md show it, the last made by bin/reference); core/shown/status.py
                      (`judged`), if it makes the verdict bad; a condition of the installation of that code
                      (core/alarms/conditions.py) is one by its key.
    a client's limit  core/budgets.py for what it may send over WebSockets; the others where "One client and all the
                      others" says.
    a condition       travels/judged.py (ConditionKind), core/conditions/rules.py (its limit, a default), signs.py
                      (when, and its words).
    a drill           core/cli/drills.py (what it breaks, its bounds), cli/drills/faults.py or conditions.py (how).
    a file            a module in adapters/state/ and a row in the map of its __init__.py, written by durable.py.
    a hostile fault   tests/doubles/hostile.py, a context with `@fault(name)`; of the network, bad_network.py beside it.
    a threat, a fault docs/threats.toml, docs/faults.toml: a row with its tests; bin/threats-and-faults makes the page.
    a measurement     bench/NAME.py; its verb, and its part of `all`, in bench/program.py; docs/performance.md.
    a planted bug     tests/simulation/planted.py; its place is a comment `# plant: slug` above a statement.

Invariants
    - No hub begins with less than what was accepted here, unless an operator says so.
    - Whoever was told "accepted" finds the command in the database at every later time, and in exactly one final state
      in the end.
    - A command runs at most once on its host, through duplicates, redeliveries, restarts and reboots of every part.
    - Nothing is shown, sent or answered that is not on disk, but what is marked as volatile (presence, metrics).
    - accepted = the sum over all states, at any moment.
    - One hub at a time: a lock on the state folder, and an epoch on all that it says; an older one is refused
      everywhere.
    - A pulse is written by the loop it speaks for, after a complete turn, and by nothing else.
    - A restored backup delivers nothing: what was open in it is lost, and whoever was revoked since stays revoked.
    - Every queue, buffer, message, wait and retry has a limit, and a stated answer when it is reached.

Glossary
    event     what happened (AgentRegistered)            effect     what to do (Put a row)
    step      one event in, effects out                  turn       one pass of a loop
    epoch     one hub's life; grows with each            sequence   an item's number in a queue
    position  (epoch of a queue's memory, sequence)      gap        items that a reader will never get
    delta     what changed in the state                  snapshot   the whole state, in pieces
    census    all connections of a gateway               enrolment  a host's identity behind its name
    command   what an operator wants done on one host    op         its kind: pull, switch, reboot
    ack       "I have it durably"                        report     "I did it"
    pulse     proof of progress, written by a loop       heartbeat  proof of reachability, sent by an agent
    frozen    no turn; stalled: turns without work done; lagging: work that waits too long
    deaf      turns, and accepts no connection            crowded    accepts, and its port has a queue all the same
    starved   no turn for want of CPU: excused     doubted    a pulse that cannot be read: a second witness decides
    evidence  what is kept before a kill                 incident   what was found, done and how long it took
    canary    a command goes round every 2 s; it knocks  fencing    refusing whatever an older epoch says
"""
