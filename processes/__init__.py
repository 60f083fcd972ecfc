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
    core      Not a process. Decides, without I/O, clock or randomness: the same input gives the same output. Start with
              fleet.py (one event in, effects out), command.py (the lifecycle), bounded_queue.py, stall.py (verdicts).
    adapters  Not a process. The hands that several processes share: settings, queue link, database, pulse files, logs,
              the door
              through which every process starts and ends.
    queues    The bounded, replayable queues between the others. Decides nothing. Its memory may be lost at any time:
              everything
              in it is repaired end to end.
    hub       The truth: hosts, commands, runs. One loop, one writer of the database, no socket of a network.
    gateway   The agents' WebSockets. Knows who is connected, keeps no truth.
    fanout    The operators' WebSockets, HTTP API, page and metrics, from a replica of the truth. Works while the hub is
              away.
              Remembers how each host was (core/fanout/history.py), over its own restarts too.
              The page (fanout/page) is plain ES modules, one for each view, without a build step; it never puts in
              markup.
    watchdog  Judges the others by their pulses and by a canary command that goes all the way round; collects evidence,
              kills
              through supervisord, keeps the incidents, raises alarms, and answers to systemd for the whole.
    agent     One fleet server. Runs only what its own file lists, each command in a shim that outlives it, and reports
              until it
              is acknowledged.
    cli       What a person types. Its drills/ rehearse failures on a running installation, within the bounds of
              core/cli/drills.py.

The state folder, the second bus
    What must outlive a process, or reach one that is not up yet, goes through files. adapters/state/__init__.py is the
    map: every file, who writes it, who reads it, whether it is synced, its mode, its lifetime.

    hub ─────────── fleet.db, epoch, revoked ──────────────────▶ fanout, watchdog, command line; its own successor
    each process ── run/pulse, run/stacks, run/farewell ───────▶ watchdog; its own successor
    each process ── run/poison ────────────────────────────────▶ its own successor
    watchdog ────── run/watchdog.json, incidents ──────────────▶ fanout, command line
    watchdog ────── run/canary.json (tokens of its canary) ────▶ gateway, fanout
    watchdog ────── run/poison/NAME.note (before a kill) ──────▶ the successor of whom it kills
    watchdog ────── alarms.json (what was told to whom) ───────▶ its own successor
    gateway ─────── run/contested ─────────────────────────────▶ watchdog
    fanout ──────── run/sessions, signed_out, cookie.key ──────▶ every fanout
    fanout ──────── history ───────────────────────────────────▶ its own successor
    command line ── run/codes (one-time sign-in) ──────────────▶ fanout
    command line ── run/wanted.json (what is to run) ──────────▶ watchdog

    Whatever is written by hand goes through adapters/state/durable.py: a file is the old one or the new one, whatever
    fails, and a disk that is full is said to the one who asked.

The life of an event in the hub (hub/loop.py): take a batch → step each on a draft, behind an exception barrier → commit
what must last in one transaction, with the events position → publish, deliver, answer, acknowledge: only what is
committed → write the pulse. While a commit is under way, events that need no disk go on, and the others are parked;
when the disk is locked or full for longer than a second, requests are refused aloud and reports are left unacknowledged
(agents send them again). From where on all was refused stands in the pulse too, so that the next hub, which gets the
same requests again, does not carry them out.

Poison: the event in hand stands in the pulse only while it is stepped. A process that finds its predecessor dead with
an event in hand counts that death against the event (core/records/poison.py), unless somebody from outside killed it;
what ended two is put aside unstepped, as a dead letter (core/records/dead_letter.py), and a row that ended two fanouts
is left out of what is shown. An agent whose events keep being put aside is suspended (core/hub/flood.py) until an
operator lifts it.

The life of a command: queued → sent → running → succeeded | failed | rejected | expired | cancelled | lost. "Accepted"
is said after the commit. Delivery is at least once; the agent's journal makes it run at most once. `lost` is said when
nobody can know whether it ran, and never guessed to be a success; a late report may still end it, once.

Invariants
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
    event     what happened (AgentRegistered)            effect     what to do (PutCommand)
    step      one event in, effects out                  turn       one pass of a loop
    epoch     one hub's life; grows with each            sequence   an item's number in a queue
    position  (epoch of a queue's memory, sequence)      gap        items that a reader will never get
    delta     what changed in the state                  snapshot   the whole state, in pieces
    census    all connections of a gateway               enrolment  a host's identity behind its name
    command   what an operator wants done on one host    op         its kind: pull, switch, reboot
    ack       "I have it durably"                        report     "I did it"
    pulse     proof of progress, written by a loop       heartbeat  proof of reachability, sent by an agent
    frozen    no turn; stalled: turns without work done; lagging: work that waits too long
    starved   no turn for want of CPU: excused     doubted    a pulse that cannot be read: a second witness decides
    evidence  what is kept before a kill                 incident   what was found, done and how long it took
    canary    the command that goes round every 2 s      fencing    refusing whatever an older epoch says
"""
