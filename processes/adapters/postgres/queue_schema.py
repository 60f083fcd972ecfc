"""The queues' tables and functions in PostgreSQL, in a schema of their own.

Everything is unlogged: what a crash of the server takes is repaired end to end, as when the process `queues` dies. A
queue whose row is missing is made with a random epoch, so that every reader meets a gap.

The row of a queue is locked by its appends and acknowledgements. So items commit in the order of their numbers, and
none below a position that somebody has read already.

Items stand in packs (core/queues/packs.py), in one of four tables, by the clock: one that is not in use and has become
empty is truncated, because what is deleted leaves dead rows behind for as long as somebody's long transaction is open.
Nothing depends on the clock being right: a pack may stand in any of them.

Whoever may not act as the owner is an edge: a gateway or fanout of another machine. It appends to `events`, and reads
and acknowledges deliveries and broadcasts, by the functions alone; its watchdog sees the figures of all queues. It
speaks for no hub.
"""

from __future__ import annotations

from typing import Final

from processes.core.queues.bounded_queue import HUB, QUEUES_MAX
from processes.core.travels.messages import EVENTS
from processes.core.travels.queue_calls import APPEND_BYTES_MAX, APPEND_ITEMS_MAX, LIMITS

VERSION: Final = 1  # of all that follows; raised with each change
EDGE: Final = "fleethub_edge"  # the role of the edges, if the database has it
LOCK: Final = 0x666C6565  # advisory locks of ours: "flee"
TABLES: Final = 4
TURN_S: Final = 10  # of one table
KEPT_BYTES: Final = 1 << 20  # a table that is smaller is not worth truncating
CLIENT_HOURS: Final = 1  # that a client's last number is remembered; no append comes so late

_TABLES = """
CREATE SCHEMA IF NOT EXISTS fleethub_queues;
CREATE TABLE IF NOT EXISTS fleethub_queues.version (id INT PRIMARY KEY CHECK (id = 1), version INT NOT NULL);
CREATE UNLOGGED TABLE IF NOT EXISTS fleethub_queues.queue (
  name TEXT PRIMARY KEY, epoch BIGINT NOT NULL, items_max BIGINT NOT NULL, bytes_max BIGINT NOT NULL,
  bulk_items_max BIGINT NOT NULL, newest BIGINT NOT NULL DEFAULT 0, acknowledged BIGINT NOT NULL DEFAULT 0,
  items BIGINT NOT NULL DEFAULT 0, bytes BIGINT NOT NULL DEFAULT 0, appended BIGINT NOT NULL DEFAULT 0,
  refused BIGINT NOT NULL DEFAULT 0, dropped BIGINT NOT NULL DEFAULT 0, removed BIGINT NOT NULL DEFAULT 0,
  made TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()) WITH (fillfactor = 10);
CREATE UNLOGGED TABLE IF NOT EXISTS fleethub_queues.client (
  client BIGINT PRIMARY KEY, number BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL) WITH (fillfactor = 20);
CREATE UNLOGGED TABLE IF NOT EXISTS fleethub_queues.fence (id INT PRIMARY KEY CHECK (id = 1), epoch BIGINT NOT NULL);
"""
_PACK = """
CREATE UNLOGGED TABLE IF NOT EXISTS fleethub_queues.pack_{k} (
  queue TEXT NOT NULL, last BIGINT NOT NULL, first BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL,
  sent_boot_s FLOAT8 NOT NULL, ends BYTEA NOT NULL, data BYTEA NOT NULL, PRIMARY KEY (queue, last));
ALTER TABLE fleethub_queues.pack_{k} ALTER ends SET STORAGE EXTERNAL, ALTER data SET STORAGE EXTERNAL;
"""
# A function's own statements see what has committed before each of them; its locks are taken before.
_HEAD = "LANGUAGE plpgsql SECURITY DEFINER SET search_path = fleethub_queues, pg_catalog, pg_temp"
_FUNCTIONS = """
CREATE OR REPLACE FUNCTION fleethub_queues.is_ours() RETURNS BOOLEAN LANGUAGE sql STABLE
  AS $$ SELECT pg_has_role(session_user, current_user, 'MEMBER') $$;

-- the bytes of a pack's first `count` items
CREATE OR REPLACE FUNCTION fleethub_queues.bytes_of(count BIGINT, ends BYTEA, data BYTEA) RETURNS BIGINT
  LANGUAGE sql IMMUTABLE AS $$ SELECT CASE WHEN count = 0 THEN 0 WHEN 4 * count = octet_length(ends) THEN
    octet_length(data) ELSE (get_byte(ends, (4 * count - 4)::INT) << 24) + (get_byte(ends, (4 * count - 3)::INT) << 16)
    + (get_byte(ends, (4 * count - 2)::INT) << 8) + get_byte(ends, (4 * count - 1)::INT) END::BIGINT $$;

-- the newest hub epoch if the caller is a hub of an older one, else 0. What a hub does and what shuts it out exclude
-- each other: the lock is held to the end of the transaction
CREATE OR REPLACE FUNCTION fleethub_queues.fenced(p_role TEXT, p_epoch BIGINT, p_changes BOOLEAN) RETURNS BIGINT
  LANGUAGE plpgsql AS $$
DECLARE v_newest BIGINT := coalesce((SELECT epoch FROM fence WHERE id = 1), 0); v_hub BIGINT;
BEGIN
  IF p_epoch > v_newest AND is_ours() THEN
    PERFORM pg_advisory_xact_lock({lock}, 1);
    INSERT INTO fence AS f VALUES (1, p_epoch) ON CONFLICT (id) DO UPDATE SET epoch = greatest(f.epoch, excluded.epoch);
    v_newest := (SELECT epoch FROM fence WHERE id = 1);
  ELSIF p_role = '{hub}' AND p_changes THEN
    PERFORM pg_advisory_xact_lock_shared({lock}, 1);
    v_newest := coalesce((SELECT epoch FROM fence WHERE id = 1), 0);
  END IF;
  IF p_role <> '{hub}' THEN RETURN 0; END IF;
  IF to_regclass('public.hub') IS NOT NULL THEN -- the row of the lease, where the truth is here too
    SELECT epoch INTO v_hub FROM public.hub WHERE id = 1;
    v_newest := greatest(v_newest, coalesce(v_hub, 0));
  END IF;
  RETURN CASE WHEN p_epoch < v_newest THEN v_newest ELSE 0 END;
END $$;

CREATE OR REPLACE FUNCTION fleethub_queues.make(p_queue TEXT) RETURNS TEXT LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT count(*) FROM queue) >= {queues_max} AND NOT EXISTS (SELECT FROM queue WHERE name = p_queue) THEN
    RETURN 'too_many_queues';
  END IF;
  {limits}
  RETURN CASE WHEN FOUND OR EXISTS (SELECT FROM queue WHERE name = p_queue) THEN '' ELSE 'unknown_queue' END;
END $$;

CREATE OR REPLACE FUNCTION fleethub_queues.fh_append(
  p_queue TEXT, p_client BIGINT, p_number BIGINT, p_ends BYTEA[], p_datas BYTEA[], p_bulk BOOLEAN, p_lossy BOOLEAN,
  p_sent_boot_s FLOAT8, p_role TEXT, p_epoch BIGINT, OUT code TEXT, OUT epoch BIGINT, OUT newest BIGINT) {head} AS $$
#variable_conflict use_column
DECLARE
  v_queue queue%ROWTYPE; v_count BIGINT; v_bytes BIGINT; v_tenths INT := CASE WHEN p_bulk THEN 9 ELSE 10 END;
BEGIN
  code := ''; epoch := 0; newest := fenced(p_role, p_epoch, true);
  IF newest > 0 THEN code := 'fenced'; RETURN; END IF;
  IF NOT is_ours() AND (p_queue <> '{events}' OR p_role = '{hub}') THEN code := 'not_yours'; RETURN; END IF;
  SELECT coalesce(sum(octet_length(e) / 4), 0), coalesce(sum(octet_length(d)), 0) INTO v_count, v_bytes
    FROM unnest(p_ends, p_datas) AS t(e, d);
  IF v_count > {items_max} OR v_bytes > {bytes_max} THEN code := 'too_big'; RETURN; END IF;
  IF p_number > 0 THEN
    INSERT INTO client AS c VALUES (p_client, p_number, clock_timestamp())
      ON CONFLICT (client) DO UPDATE SET number = excluded.number, at = excluded.at WHERE c.number < excluded.number;
    IF NOT FOUND THEN code := 'given_up'; RETURN; END IF;
  END IF;
  SELECT * INTO v_queue FROM queue WHERE name = p_queue FOR UPDATE;
  IF NOT FOUND THEN
    code := make(p_queue);
    IF code <> '' THEN RETURN; END IF;
    SELECT * INTO v_queue FROM queue WHERE name = p_queue FOR UPDATE;
  END IF;
  epoch := v_queue.epoch; newest := v_queue.newest;
  IF v_queue.items + v_count > v_queue.items_max * v_tenths / 10
    OR v_queue.bytes + v_bytes > v_queue.bytes_max * v_tenths / 10
    OR (p_bulk AND v_queue.items >= v_queue.bulk_items_max) THEN
    code := 'full';
    IF p_lossy THEN
      newest := newest + v_count;
      UPDATE queue SET newest = newest + v_count, dropped = dropped + v_count WHERE name = p_queue;
      PERFORM pg_notify('fh_' || md5(p_queue), '');
    ELSE
      UPDATE queue SET refused = refused + v_count WHERE name = p_queue;
    END IF;
    RETURN;
  END IF;
  CASE extract(epoch FROM clock_timestamp())::BIGINT / {turn_s} % {tables}
  {inserts}
  END CASE;
  newest := newest + v_count;
  UPDATE queue SET newest = newest + v_count, items = items + v_count, bytes = bytes + v_bytes,
    appended = appended + v_count WHERE name = p_queue;
  IF v_count > 0 THEN PERFORM pg_notify('fh_' || md5(p_queue), ''); END IF;
END $$;

-- one row at least; the first columns are the same in all. Head and packs are of one moment: it is one statement
CREATE OR REPLACE FUNCTION fleethub_queues.fh_read(
  p_queue TEXT, p_after_epoch BIGINT, p_after BIGINT, p_items_max INT, p_bytes_max INT, p_role TEXT, p_epoch BIGINT)
  RETURNS TABLE (code TEXT, epoch BIGINT, newest BIGINT, acknowledged BIGINT, first BIGINT, ends BYTEA, data BYTEA)
  {head} AS $$
#variable_conflict use_column
BEGIN
  code := ''; newest := fenced(p_role, p_epoch, false);
  IF newest > 0 THEN
    code := 'fenced';
  ELSIF NOT is_ours() AND (p_role = '{hub}' OR p_queue = '{events}') THEN
    code := 'not_yours';
  ELSIF NOT EXISTS (SELECT FROM queue WHERE name = p_queue) THEN
    code := make(p_queue);
  END IF;
  IF code <> '' THEN RETURN NEXT; RETURN; END IF;
  RETURN QUERY
    SELECT ''::TEXT, q.epoch, q.newest, q.acknowledged, p.first, p.ends, p.data
    FROM queue q
    CROSS JOIN LATERAL (SELECT
      CASE WHEN q.epoch = p_after_epoch THEN greatest(q.acknowledged, p_after) ELSE q.acknowledged END AS after) l
    LEFT JOIN LATERAL (
      SELECT w.* FROM (
        SELECT s.*, sum(octet_length(s.data)) OVER (ORDER BY s.last) - octet_length(s.data) AS before FROM (
          SELECT k.* FROM pack k WHERE k.queue = p_queue AND k.last > l.after ORDER BY k.last LIMIT {packs_max}) s) w
      WHERE w.before = 0 OR (w.before < p_bytes_max AND w.first <= l.after + p_items_max)) p ON true
    WHERE q.name = p_queue ORDER BY p.last;
END $$;

CREATE OR REPLACE FUNCTION fleethub_queues.fh_ack(
  p_queue TEXT, p_after_epoch BIGINT, p_after BIGINT, p_role TEXT, p_epoch BIGINT,
  OUT code TEXT, OUT epoch BIGINT, OUT newest BIGINT) {head} AS $$
#variable_conflict use_column
DECLARE v_queue queue%ROWTYPE; v_items BIGINT; v_bytes BIGINT;
BEGIN
  code := ''; epoch := 0; newest := fenced(p_role, p_epoch, true);
  IF newest > 0 THEN code := 'fenced'; RETURN; END IF;
  IF NOT is_ours() AND (p_role = '{hub}' OR p_queue = '{events}') THEN code := 'not_yours'; RETURN; END IF;
  SELECT * INTO v_queue FROM queue WHERE name = p_queue FOR UPDATE;
  IF NOT FOUND THEN
    code := make(p_queue);
    IF code <> '' THEN RETURN; END IF;
    SELECT * INTO v_queue FROM queue WHERE name = p_queue FOR UPDATE;
  END IF;
  epoch := v_queue.epoch; newest := v_queue.newest;
  IF p_after_epoch <> v_queue.epoch OR p_after <= v_queue.acknowledged THEN RETURN; END IF;
  IF p_after > v_queue.newest THEN code := 'bad_position'; RETURN; END IF;
  -- of a pack that ends in the middle, what is up to the position goes out of the counts
  SELECT coalesce(sum(least(last, p_after) - greatest(first - 1, v_queue.acknowledged)), 0),
    coalesce(sum(bytes_of(least(last, p_after) - first + 1, ends, data)
      - bytes_of(greatest(first - 1, v_queue.acknowledged) - first + 1, ends, data)), 0)
    INTO v_items, v_bytes
    FROM pack WHERE queue = p_queue AND last > v_queue.acknowledged AND first <= p_after;
  {deletes}
  UPDATE queue SET acknowledged = p_after, items = items - v_items, bytes = bytes - v_bytes,
    removed = removed + v_items WHERE name = p_queue;
END $$;

CREATE OR REPLACE FUNCTION fleethub_queues.fh_stats(p_role TEXT, p_epoch BIGINT)
  RETURNS TABLE (name TEXT, epoch BIGINT, items BIGINT, bytes BIGINT, items_max BIGINT, bytes_max BIGINT,
    oldest_age_s FLOAT8, appended BIGINT, refused BIGINT, dropped BIGINT, acknowledged BIGINT, readers BIGINT)
  {head} AS $$
#variable_conflict use_column
BEGIN
  PERFORM fenced(p_role, p_epoch, false);
  RETURN QUERY
    SELECT q.name, q.epoch, q.items, q.bytes, q.items_max, q.bytes_max,
      CASE WHEN q.items = 0 THEN 0 ELSE coalesce(greatest(0, extract(epoch FROM clock_timestamp() - (
        SELECT k.at FROM pack k WHERE k.queue = q.name AND k.last > q.acknowledged ORDER BY k.last LIMIT 1)
      )), 0) END::FLOAT8,
      q.appended, q.refused, q.dropped, q.removed,
      (SELECT count(*) FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = {lock} AND l.objsubid = 2 AND
        l.objid = (hashtext(q.name)::BIGINT & 4294967295)::OID
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
    FROM queue q ORDER BY q.made, q.name;
END $$;

-- truncates what is not in use and empty. Whoever uses one of the tables now goes first
CREATE OR REPLACE FUNCTION fleethub_queues.fh_sweep() RETURNS VOID {head} AS $$
DECLARE
  v_now INT := extract(epoch FROM clock_timestamp())::BIGINT / {turn_s} % {tables}; v_table TEXT; v_used BOOLEAN;
BEGIN
  FOR k IN 1..{tables} - 2 LOOP
    v_table := 'pack_' || (v_now + k + 1) % {tables};
    IF pg_total_relation_size(v_table::REGCLASS) > {kept_bytes} THEN
      BEGIN
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE NOWAIT', v_table);
        EXECUTE format('SELECT EXISTS (SELECT FROM %I)', v_table) INTO v_used;
        IF NOT v_used THEN EXECUTE format('TRUNCATE %I', v_table); END IF;
      EXCEPTION WHEN lock_not_available THEN NULL;
      END;
    END IF;
  END LOOP;
  DELETE FROM client WHERE at < clock_timestamp() - interval '{client_hours} hours';
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA fleethub_queues FROM PUBLIC;
INSERT INTO fleethub_queues.version VALUES (1, {version})
  ON CONFLICT (id) DO UPDATE SET version = excluded.version;
"""
GRANTS: Final = f"""
GRANT USAGE ON SCHEMA fleethub_queues TO {EDGE};
GRANT SELECT ON fleethub_queues.version TO {EDGE};
GRANT EXECUTE ON FUNCTION fleethub_queues.fh_append, fleethub_queues.fh_read, fleethub_queues.fh_ack,
  fleethub_queues.fh_stats TO {EDGE};
"""


def statements() -> str:
    """Return what makes all of it, or brings an older version up to date."""
    ks = range(TABLES)
    pack = " UNION ALL ".join(f"SELECT * FROM fleethub_queues.pack_{k}" for k in ks)  # noqa: S608
    return "".join(
        (
            _TABLES,
            *(_PACK.format(k=k) for k in ks),
            f"CREATE OR REPLACE VIEW fleethub_queues.pack AS {pack};",
            _FUNCTIONS.format(
                head=_HEAD, hub=HUB, events=EVENTS, lock=LOCK, queues_max=QUEUES_MAX, items_max=APPEND_ITEMS_MAX,
                bytes_max=APPEND_BYTES_MAX, tables=TABLES, turn_s=TURN_S, kept_bytes=KEPT_BYTES, version=VERSION,
                client_hours=CLIENT_HOURS, packs_max=500, limits=_limits(),
                inserts="\n  ".join(f"WHEN {k} THEN {_INSERT.format(k=k)}" for k in ks),
                deletes="\n  ".join(
                    _DELETE.format(k=k)
                    for k in ks
                ),
            ),
        )
    )  # fmt: skip


_INSERT = """INSERT INTO pack_{k}
      SELECT p_queue, v_queue.newest + n, v_queue.newest + n - octet_length(e) / 4 + 1, clock_timestamp(),
        p_sent_boot_s, e, d
      FROM (SELECT e, d, sum(octet_length(e) / 4) OVER (ORDER BY i) AS n
        FROM unnest(p_ends, p_datas) WITH ORDINALITY AS t(e, d, i)) s;"""

_DELETE = "DELETE FROM pack_{k} WHERE queue = p_queue AND last > v_queue.acknowledged AND last <= p_after;"


def _limits() -> str:
    """Return the statement that makes the row of a queue, with the limits that core/travels/queue_calls.py has."""
    rows = ", ".join(
        f"('{prefix}', {limits.items_max}, {limits.bytes_max}, {limits.bulk_items_max})" for prefix, limits in LIMITS
    )
    return f"""INSERT INTO queue (name, epoch, items_max, bytes_max, bulk_items_max)
    SELECT p_queue, 1 + floor(random() * 4503599627370494)::BIGINT, l.i, l.b, l.u
    FROM (VALUES {rows}) AS l(prefix, i, b, u)
    WHERE CASE WHEN right(prefix, 1) = '/' THEN
      starts_with(p_queue, prefix) AND substr(p_queue, length(prefix) + 1) ~ '^[A-Za-z0-9_.:-]{{1,64}}$'
      ELSE p_queue = prefix END
    ON CONFLICT (name) DO NOTHING;"""  # noqa: S608
