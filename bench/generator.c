/* The load of bin/bench: agents or subscribers, as many as wanted, as WebSocket clients in one loop of epoll.
 *
 *     generator agents PORT TOKENS_FILE COUNT DIALECT      one agent for each line of the file, up to COUNT
 *     generator watch PORT TOKENS_FILE COUNT DIALECT       so many subscribers, with the file's tokens by turns
 *     generator ask PORT TOKENS_FILE COUNT fleethub        one subscriber, and the others are connections for HTTP
 *
 *     generator loop COUNT BYTES SECONDS                   no client: what a plain loop of write() brings to so many
 *                                                          sockets, frames of so many bytes; prints one line and ends
 *
 * DIALECT: fleethub (also what bench/peers/plain speaks) or nats. Agents are named bench0, bench1, …, register, and
 * answer each command at once with success. Every heartbeat is told from every other: metrics.load is its number among
 * those of its agent, metrics.uptime_s when it was due, in seconds of CLOCK_MONOTONIC. So the first subscriber can say of
 * each heartbeat whether its own value was shown, and how long that took. The time that a heartbeat was due, not when
 * it was sent, is what counts: a hub that makes its clients wait does not look fast thereby.
 *
 * Lines on stdin, each answered by one line of JSON:
 *     send RATE SECONDS   agents: that many heartbeats in a second, by turns; 0: as many as the sockets take. Answered
 *                         at the end; nothing is sent after it.
 *     beat SECONDS        agents: from now on each sends a heartbeat in so long, uncounted; 0: none. Answered at once.
 *     once                agents: each sends one now, uncounted. Answered at once.
 *     begin               watch: count from now on.
 *     so far              watch: tell how many were shown and conflated, and how many rows had a heartbeat since
 *                         this program began.
 *     end                 watch: tell it all.
 *     ask RATE SECONDS N  ask: that many commands in a second, each for one of the hosts bench0 … benchN by turns; 0: the
 *                         next one when the last was accepted. Answered when all have ended, or ASK_END_S later.
 *     cut                 agents: end all connections without a word, and connect anew; answered when all are back.
 * The first line of output comes when all are connected (and registered). The end of stdin ends the program.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTING_MAX = 200, NUMBERS = 1000000, FLOOD_FRAMES = 64, TURN_FRAMES = 2048, PENDING_MAX = 1 << 16 };
enum { COMMANDS_ROOM = 1 << 20, ASK_END_S = 10 };

typedef struct {
    char *data;
    size_t size, room;
} Buffer;

typedef enum { AWAY, DIALLING, UPGRADING, GREETING, READY } State;

typedef struct {
    int fd, number;
    State state;
    bool writable_wanted;
    uint32_t sent;       /* agents: the number of its last heartbeat */
    bool is_http, is_asking; /* ask: a connection for HTTP; it waits for an answer */
    double asked_s;      /* ask: when that request was due */
    Buffer in, out, stream;
    char token[128];
} Client;

static const char *role, *dialect;
static bool is_agents, is_asker, is_nats;
static int port, count, poller, connecting, ready, closed_by_hub;
static Client *clients;

/* agents: what is being sent */
static double rate, began_s, until_s, beat_s, beat_began_s;
static uint64_t due_count, sent, held, beats, commands;
static bool sending;
/* watch: what was shown */
static int32_t *shown; /* by agent: the number of its last heartbeat that was shown; -1: none */
static uint64_t rows, shown_count, conflated, backwards, frames, bytes, full_states;
static bool is_counting; /* what was shown before is where each agent's numbers begin */
static double cpu_began_s;
/* ask: commands by the hash of their ids, whose end may be seen before they are answered */
typedef struct {
    uint64_t hash;
    double asked_s, ended_s;
} Command;
static Command *asked;
static int host_count;
static uint64_t accepted, refused, ended;
static bool is_ending;

typedef struct {
    float *values;
    size_t size, room;
} Sample;
static Sample late, lag, acceptance;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void die(const char *what) {
    fprintf(stderr, "generator %s: %s: %s\n", role, what, strerror(errno));
    exit(1);
}

static void *grown(void *old, size_t size) {
    void *new = realloc(old, size);
    if (!new) die("memory");
    return new;
}

static void add(Buffer *to, const void *data, size_t size) {
    if (to->size + size > to->room) to->data = grown(to->data, to->room = (to->size + size) * 2);
    memcpy(to->data + to->size, data, size);
    to->size += size;
}

static void drop(Buffer *from, size_t size) {
    from->size -= size;
    if (from->size) memmove(from->data, from->data + size, from->size);
    else if (from->room > PENDING_MAX) free(from->data), from->data = NULL, from->room = 0;
}

static void note(Sample *to, double value) {
    if (to->size == to->room) to->values = grown(to->values, (to->room = to->room ? to->room * 2 : 4096) * sizeof(float));
    to->values[to->size++] = (float)value;
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* In milliseconds; the sample must be sorted. */
static double cut_ms(const Sample *of, double share) {
    return of->size ? 1e3 * (double)of->values[(size_t)(share * (double)(of->size - 1))] : 0.0;
}

static void watch_writable(Client *c, bool wanted) {
    if (c->writable_wanted == wanted) return;
    c->writable_wanted = wanted;
    struct epoll_event e = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0u), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
}

static void lose(Client *c) {
    c->is_asking = false;
    if (c->state == READY) ready--, closed_by_hub++;
    else if (c->state != AWAY) connecting--;
    if (c->fd >= 0) close(c->fd);
    c->fd = -1, c->state = AWAY, c->in.size = c->out.size = c->stream.size = 0, c->writable_wanted = false;
}

static void flush(Client *c) {
    while (c->out.size) {
        ssize_t n = send(c->fd, c->out.data, c->out.size, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) {
            lose(c);
            return;
        }
        drop(&c->out, (size_t)n);
    }
    watch_writable(c, c->out.size > 0);
}

static void put_frame(Client *c, unsigned opcode, const char *text, size_t size) {
    unsigned char head[8] = {(unsigned char)(0x80u | opcode)}, mask[4] = {0x3c, 0xa5, (unsigned char)c->number, 0x71};
    size_t n = 2;
    if (size < 126) head[1] = (unsigned char)(0x80u | size);
    else head[1] = 0x80u | 126, head[2] = (unsigned char)(size >> 8), head[3] = (unsigned char)size, n = 4;
    memcpy(head + n, mask, 4);
    add(&c->out, head, n + 4);
    add(&c->out, text, size);
    char *at = c->out.data + c->out.size - size;
    for (size_t i = 0; i < size; i++) at[i] = (char)(at[i] ^ mask[i & 3]);
}

static void put_text(Client *c, const char *text) { put_frame(c, is_nats ? 2 : 1, text, strlen(text)); }

static void put_heartbeat(Client *c, double due_s) {
    char payload[512], text[768];
    c->sent = (c->sent + 1) % NUMBERS;
    int n = snprintf(payload, sizeof payload,
                     "{\"cpu\":%u.5,\"ram\":%u.25,\"swap\":0.0,\"load\":%u,\"disk\":61.5,\"uptime_s\":%.6f}",
                     c->sent * 7 % 100, c->sent * 3 % 100, c->sent, due_s);
    if (is_nats) {
        char id[64];
        int m = snprintf(id, sizeof id, "{\"id\":\"bench%d\",\"metrics\":", c->number);
        snprintf(text, sizeof text, "PUB hosts.bench%d %d\r\n%s%s}\r\n", c->number, n + m + 1, id, payload);
    } else {
        snprintf(text, sizeof text,
                 "{\"type\":\"heartbeat\",\"payload\":{\"metrics\":%s,\"pending_command\":null,\"command_pid\":null}}", payload);
    }
    put_text(c, text);
}

/* What a client says first, once its connection is a WebSocket. */
static void greet(Client *c) {
    char text[512];
    c->state = GREETING;
    if (is_nats) {
        put_text(c, "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
        if (!is_agents) put_text(c, "SUB hosts.* 1\r\n");
        put_text(c, "PING\r\n");
    } else if (is_agents) {
        snprintf(text, sizeof text,
                 "{\"type\":\"register\",\"payload\":{\"hostname\":\"bench%d\",\"protocol\":1,\"journal_id\":\"bench%d\",\"boot_id\":\"b\","
                 "\"agent_version\":\"bench\",\"commands\":[\"noop\"],\"known\":[],\"heartbeat_interval\":5.0}}",
                 c->number, c->number);
        put_text(c, text);
    }
    flush(c);
}

static void become_ready(Client *c) {
    if (c->state == READY) return;
    c->state = READY, connecting--, ready++;
}

static bool has(const char *data, size_t size, const char *what) { return memmem(data, size, what, strlen(what)) != NULL; }

/* Copy the string that is the value of a key. */
static bool field(const char *data, size_t size, const char *key, char *to, size_t room) {
    const char *at = memmem(data, size, key, strlen(key));
    if (!at) return false;
    at += strlen(key);
    const char *end = memchr(at, '"', size - (size_t)(at - data));
    if (!end || (size_t)(end - at) >= room) return false;
    memcpy(to, at, (size_t)(end - at));
    to[end - at] = 0;
    return true;
}

/* An agent heard something: it is registered, or is to do something and has done it at once. */
static void hear(Client *c, const char *data, size_t size) {
    char id[160], op[160], text[512];
    if (has(data, size, "\"type\":\"registered\"")) {
        become_ready(c);
    } else if (has(data, size, "\"type\":\"command\"") && field(data, size, "\"command_id\":\"", id, sizeof id) &&
               field(data, size, "\"command\":\"", op, sizeof op)) {
        commands++;
        snprintf(text, sizeof text, "{\"type\":\"command_ack\",\"payload\":{\"command_id\":\"%s\",\"state\":\"accepted\"}}", id);
        put_text(c, text);
        snprintf(text, sizeof text,
                 "{\"type\":\"status\",\"payload\":{\"command_id\":\"%s\",\"command\":\"%s\",\"status\":\"ok\",\"exit_code\":0}}", id, op);
        put_text(c, text);
        flush(c);
    }
}

/* A subscriber was shown something: find each agent's name and the metrics behind it. */
static void see(const char *data, size_t size) {
    static const char NAME[] = ":\"bench", METRICS[] = "\"metrics\":{", ID[] = "\"id\":\"", NAMED[] = "\"name\":\"";
    const char *end = data + size, *at = data;
    double seen_s = now_s();
    int host = -1;
    while ((at = memchr(at, '"', (size_t)(end - at)))) {
        size_t left = (size_t)(end - at);
        size_t name = 0;
        if (left > sizeof NAMED && !memcmp(at, NAMED, sizeof NAMED - 1)) name = sizeof NAMED - 3;
        if (left > sizeof ID && !memcmp(at, ID, sizeof ID - 1)) name = sizeof ID - 3;
        if (name) { /* another row begins; it is an agent of ours, or not */
            bool ours = left > name + sizeof NAME && !memcmp(at + name, NAME, sizeof NAME - 1);
            host = ours ? atoi(at + name + sizeof NAME - 1) : -1;
            at += name + 2;
        } else if (host >= 0 && left > sizeof METRICS && !memcmp(at, METRICS, sizeof METRICS - 1)) {
            const char *load = memmem(at, left, "\"load\":", 7), *due = memmem(at, left, "\"uptime_s\":", 11);
            if (!load || !due || host >= NUMBERS) return;
            int32_t number = (int32_t)atof(load + 7);
            int32_t ahead = shown[host] < 0 ? 1 : (number - shown[host] + NUMBERS) % NUMBERS;
            rows++;
            if (!is_counting) shown[host] = number;
            else if (ahead > NUMBERS / 2) backwards++;
            else if (ahead) {
                conflated += (uint64_t)(ahead - 1);
                shown[host] = number;
                shown_count++;
                note(&lag, seen_s - atof(due + 11));
            }
            at = load > due ? load : due;
            host = -1;
        } else {
            at++;
        }
    }
}

static void note_command(const char *id, size_t size, double asked_s, double ended_s) {
    uint64_t hash = 1469598103934665603u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ (unsigned char)id[i]) * 1099511628211u;
    Command *at = &asked[hash % COMMANDS_ROOM];
    while (at->hash && at->hash != hash) at = at == asked + COMMANDS_ROOM - 1 ? asked : at + 1;
    if (at->ended_s && at->asked_s) return; /* all that is wanted is known */
    at->hash = hash;
    if (asked_s) at->asked_s = asked_s;
    if (ended_s) at->ended_s = ended_s;
    if (at->ended_s && at->asked_s) ended++, note(&lag, at->ended_s - at->asked_s);
}

/* The subscriber beside the asking was shown something: find each command whose state is final. */
static void see_ends(const char *data, size_t size) {
    static const char ID[] = "\"id\":\"", DONE[] = "\"state\":\"succeeded\"";
    const char *end = data + size, *at = data, *id = NULL;
    double seen_s = now_s();
    if (has(data, size < 64 ? size : 64, "\"full_state\"")) return; /* what was before */
    while ((at = memchr(at, '"', (size_t)(end - at)))) {
        size_t left = (size_t)(end - at);
        if (left > sizeof ID && !memcmp(at, ID, sizeof ID - 1)) {
            id = at += sizeof ID - 1;
        } else if (id && left > sizeof DONE && !memcmp(at, DONE, sizeof DONE - 1)) {
            const char *stop = memchr(id, '"', (size_t)(end - id));
            note_command(id, (size_t)(stop - id), 0, seen_s);
            at++;
        } else {
            at++;
        }
    }
}

static void ask(Client *c, double due_s) {
    char text[768], body[160];
    int n = snprintf(body, sizeof body, "{\"op\":\"noop\",\"hosts\":[\"bench%llu\"]}", (unsigned long long)(sent % (uint64_t)host_count));
    snprintf(text, sizeof text,
             "POST /api/v1/commands HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n"
             "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
             port, c->token, n, body);
    c->is_asking = true, c->asked_s = due_s, sent++;
    add(&c->out, text, strlen(text));
    flush(c);
}

/* Take an answer of HTTP, if it is whole. */
static void take_answer(Client *c) {
    char *body = memmem(c->in.data, c->in.size, "\r\n\r\n", 4), id[160];
    if (!body) return;
    body += 4;
    *(body - 1) = 0; /* the head is a text now */
    char *length = strcasestr(c->in.data, "content-length:");
    size_t size = length ? (size_t)atol(length + 15) : 0, whole = (size_t)(body - c->in.data) + size;
    *(body - 1) = '\n';
    if (c->in.size < whole) return;
    c->is_asking = false;
    if (!strncmp(c->in.data, "HTTP/1.1 202", 12) && field(body, size, "\"id\":\"", id, sizeof id)) {
        accepted++, note(&acceptance, now_s() - c->asked_s);
        note_command(id, strlen(id), c->asked_s, 0);
    } else if (!refused++) {
        fprintf(stderr, "generator ask: %.*s\n", (int)whole, c->in.data);
    }
    drop(&c->in, whole);
}

static void on_message(Client *c, unsigned opcode, const char *data, size_t size) {
    if (opcode == 9) {
        put_frame(c, 10, data, size);
        flush(c);
    } else if (opcode == 8) {
        lose(c);
    } else if (is_nats) {
        if (has(data, size, "PONG\r\n")) become_ready(c);
        if (has(data, size, "PING\r\n")) put_text(c, "PONG\r\n"), flush(c);
        if (is_agents) return;
        frames++, bytes += size;
        if (c->number) return;
        add(&c->stream, data, size); /* a message may be in two frames */
        char *last = memrchr(c->stream.data, '\n', c->stream.size);
        if (!last) return;
        see(c->stream.data, (size_t)(last - c->stream.data));
        drop(&c->stream, (size_t)(last - c->stream.data) + 1);
    } else if (is_agents) {
        hear(c, data, size);
    } else {
        become_ready(c);
        frames++, bytes += size;
        if (has(data, size < 64 ? size : 64, "\"full_state\"")) full_states++;
        if (is_asker) see_ends(data, size);
        else if (c->number == 0) see(data, size);
    }
}

/* Take all whole frames out of what was read. */
static void take(Client *c) {
    size_t at = 0;
    if (c->is_http) {
        take_answer(c);
        return;
    }
    if (c->state == UPGRADING) {
        char *end = memmem(c->in.data, c->in.size, "\r\n\r\n", 4);
        if (!end) return;
        if (strncmp(c->in.data, "HTTP/1.1 101", 12)) {
            fprintf(stderr, "generator %s: %.*s\n", role, (int)strcspn(c->in.data, "\r"), c->in.data);
            lose(c);
            return;
        }
        at = (size_t)(end - c->in.data) + 4;
        greet(c);
    }
    while (c->state > UPGRADING && c->in.size - at >= 2) {
        const unsigned char *head = (unsigned char *)c->in.data + at;
        size_t n = 2, size = head[1] & 0x7f;
        if (size == 126) n = 4;
        if (size == 127) n = 10;
        if (c->in.size - at < n) break;
        if (n > 2) {
            size = 0;
            for (size_t i = 2; i < n; i++) size = size << 8 | head[i];
        }
        if (c->in.size - at < n + size) break;
        on_message(c, head[0] & 0xf, (char *)head + n, size);
        at += n + size;
    }
    if (c->state > UPGRADING && at) drop(&c->in, at);
}

static void on_readable(Client *c) {
    static char part[1 << 18];
    for (int turn = 0; turn < 16 && c->fd >= 0; turn++) {
        ssize_t n = recv(c->fd, part, sizeof part, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            lose(c);
            return;
        }
        add(&c->in, part, (size_t)n);
        take(c);
        if ((size_t)n < sizeof part) return;
    }
}

static void dial(Client *c) {
    char text[512];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->state = DIALLING, connecting++;
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) die("connect");
    c->is_http = is_asker && c->number > 0;
    if (!c->is_http) snprintf(text, sizeof text,
             "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Key: YmVuY2gtYmVuY2gtYmVuYw==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer %s\r\n\r\n",
             is_nats ? "/" : "/ws", port, c->token);
    if (!c->is_http) add(&c->out, text, strlen(text));
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    c->writable_wanted = true;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e)) die("epoll");
}

static void dial_some(void) {
    static int next;
    for (int tries = 0; tries < count && connecting < CONNECTING_MAX && connecting + ready < count; tries++) {
        Client *c = &clients[next++ % count];
        if (c->state == AWAY) dial(c);
    }
}

/* Send the heartbeats that are due. Return when the next one is. */
static double send_some(double at_s) {
    if (is_asker && sending) {
        int askers = rate > 0 ? count : 2; /* one at a time: the first connection alone asks */
        for (int i = 1; i < askers; i++) {
            Client *c = &clients[i];
            double due_s = rate > 0 ? began_s + (double)due_count / rate : at_s;
            if (due_s >= until_s || due_s > at_s) return due_s < until_s ? due_s : until_s;
            if (c->is_asking || c->state != READY) continue;
            ask(c, due_s), due_count++;
        }
        return rate > 0 ? at_s + 0.001 : at_s + 0.05;
    }
    if (sending && rate > 0) {
        for (int n = 0; n < TURN_FRAMES; n++) {
            double due_s = began_s + (double)due_count / rate;
            if (due_s >= until_s) return until_s;
            if (due_s > at_s) return due_s;
            Client *c = &clients[due_count++ % (uint64_t)count];
            if (c->state != READY || c->out.size) {
                held++;
                continue;
            }
            note(&late, at_s - due_s);
            put_heartbeat(c, due_s);
            sent++;
            flush(c);
        }
        return at_s;
    }
    if (sending) { /* as many as the sockets take */
        for (int i = 0; i < count; i++) {
            Client *c = &clients[i];
            if (c->state != READY || c->out.size) continue;
            double stamp_s = now_s();
            for (int n = 0; n < FLOOD_FRAMES; n++) put_heartbeat(c, stamp_s), sent++;
            flush(c);
        }
        return at_s + 0.001;
    }
    if (beat_s > 0) {
        double step_s = beat_s / count;
        for (int n = 0; n < TURN_FRAMES && beat_began_s + (double)beats * step_s <= at_s; n++) {
            Client *c = &clients[beats++ % (uint64_t)count];
            if (c->state == READY && !c->out.size) put_heartbeat(c, at_s), flush(c);
        }
        return beat_began_s + (double)beats * step_s;
    }
    return at_s + 0.1;
}

static void say(const char *text) {
    puts(text);
    fflush(stdout);
}

static void tell_sent(double at_s) {
    char text[512];
    qsort(late.values, late.size, sizeof(float), by_value);
    snprintf(text, sizeof text,
             "{\"due\":%llu,\"sent\":%llu,\"held\":%llu,\"seconds\":%.6f,\"late_p50_ms\":%.3f,\"late_p99_ms\":%.3f,\"connected\":%d,"
             "\"lost_connections\":%d,\"cpu_s\":%.3f}",
             (unsigned long long)(sent + held), (unsigned long long)sent, (unsigned long long)held, at_s - began_s, cut_ms(&late, 0.5),
             cut_ms(&late, 0.99), ready, closed_by_hub, cpu_s() - cpu_began_s);
    say(text);
}

static void tell_shown(void) {
    char text[512];
    qsort(lag.values, lag.size, sizeof(float), by_value);
    snprintf(text, sizeof text,
             "{\"shown\":%llu,\"conflated\":%llu,\"backwards\":%llu,\"frames\":%llu,\"bytes\":%llu,\"full_states\":%llu,\"p50_ms\":%.3f,\"p99_ms\":%.3f,"
             "\"max_ms\":%.3f,\"connected\":%d,\"lost_connections\":%d,\"cpu_s\":%.3f}",
             (unsigned long long)shown_count, (unsigned long long)conflated, (unsigned long long)backwards, (unsigned long long)frames, (unsigned long long)bytes,
             (unsigned long long)full_states, cut_ms(&lag, 0.5), cut_ms(&lag, 0.99), cut_ms(&lag, 1.0), ready, closed_by_hub,
             cpu_s() - cpu_began_s);
    say(text);
}

static void tell_asked(double at_s) {
    char text[512];
    qsort(acceptance.values, acceptance.size, sizeof(float), by_value);
    qsort(lag.values, lag.size, sizeof(float), by_value);
    snprintf(text, sizeof text,
             "{\"asked\":%llu,\"accepted\":%llu,\"refused\":%llu,\"ended\":%llu,\"seconds\":%.6f,\"accepted_p50_ms\":%.3f,"
             "\"accepted_p99_ms\":%.3f,\"ended_p50_ms\":%.3f,\"ended_p99_ms\":%.3f,\"cpu_s\":%.3f}",
             (unsigned long long)sent, (unsigned long long)accepted, (unsigned long long)refused, (unsigned long long)ended,
             at_s - began_s, cut_ms(&acceptance, 0.5), cut_ms(&acceptance, 0.99), cut_ms(&lag, 0.5), cut_ms(&lag, 0.99),
             cpu_s() - cpu_began_s);
    say(text);
}

static bool is_waiting; /* for all to be connected, to say so */
static double waiting_since_s;

/* Carry out one line of stdin. */
static void obey(const char *line) {
    double a = 0, b = 0;
    double at_s = now_s();
    if (sscanf(line, "send %lf %lf", &a, &b) == 2) {
        sending = true, rate = a, began_s = at_s, until_s = at_s + b, due_count = sent = held = 0, late.size = 0, beat_s = 0;
        closed_by_hub = 0, cpu_began_s = cpu_s();
    } else if (sscanf(line, "beat %lf", &a) == 1) {
        beat_s = a, beat_began_s = at_s, beats = 0;
        say("{}");
    } else if (sscanf(line, "ask %lf %lf %d", &a, &b, &host_count) == 3) {
        sending = true, rate = a, began_s = at_s, until_s = at_s + b, due_count = sent = accepted = refused = ended = 0;
        acceptance.size = lag.size = 0, cpu_began_s = cpu_s(), closed_by_hub = 0;
    } else if (!strncmp(line, "once", 4)) {
        for (int i = 0; i < count; i++)
            if (clients[i].state == READY && !clients[i].out.size) put_heartbeat(&clients[i], at_s), flush(&clients[i]);
        say("{}");
    } else if (!strncmp(line, "begin", 5)) {
        is_counting = true;
        shown_count = conflated = backwards = frames = bytes = full_states = 0, lag.size = 0, closed_by_hub = 0, cpu_began_s = cpu_s();
        say("{}");
    } else if (!strncmp(line, "so far", 6)) {
        char text[96];
        snprintf(text, sizeof text, "{\"shown\":%llu,\"conflated\":%llu,\"rows\":%llu}", (unsigned long long)shown_count,
                 (unsigned long long)conflated, (unsigned long long)rows);
        say(text);
    } else if (!strncmp(line, "end", 3)) {
        tell_shown();
    } else if (!strncmp(line, "cut", 3)) {
        for (int i = 0; i < count; i++) lose(&clients[i]);
        closed_by_hub = 0, is_waiting = true, waiting_since_s = at_s;
    } else {
        say("{\"error\":\"unknown line\"}");
    }
}

static bool read_lines(void) {
    static char line[256];
    static size_t size;
    char c;
    ssize_t n;
    while ((n = read(0, &c, 1)) == 1) {
        if (c == '\n') line[size] = 0, size = 0, obey(line);
        else if (size < sizeof line - 1) line[size++] = c;
    }
    return n != 0;
}

static void read_tokens(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) die(path);
    char line[128];
    for (int i = 0; i < count; i++) {
        clients[i].fd = -1, clients[i].number = i;
        if (!fgets(line, sizeof line, file)) {
            rewind(file); /* the tokens by turns */
            if (is_agents || !fgets(line, sizeof line, file)) errno = EINVAL, die("fewer tokens than agents");
        }
        line[strcspn(line, "\n")] = 0;
        strcpy(clients[i].token, line);
    }
    fclose(file);
}

static void run(void) {
    struct epoll_event events[512];
    double next_s = 0;
    is_waiting = true, waiting_since_s = now_s();
    for (;;) {
        double at_s = now_s(), left_s = next_s - at_s;
        if (connecting + ready < count) left_s = left_s < 0.02 ? left_s : 0.02;
        if (left_s < 0) left_s = 0;
        struct timespec wait = {.tv_sec = (time_t)left_s, .tv_nsec = (long)((left_s - (double)(time_t)left_s) * 1e9)};
        int n = epoll_pwait2(poller, events, 512, &wait, NULL);
        if (n < 0 && errno != EINTR) die("epoll_pwait2");
        for (int i = 0; i < n; i++) {
            Client *c = events[i].data.ptr;
            if (!c) {
                if (!read_lines()) return;
                continue;
            }
            if (c->fd < 0) continue;
            if (c->state == DIALLING) {
                c->state = UPGRADING;
                if (c->is_http) become_ready(c);
            }
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
            if (c->fd >= 0 && events[i].events & EPOLLOUT) flush(c);
        }
        at_s = now_s();
        if (connecting + ready < count) dial_some();
        if (is_waiting && ready == count) {
            char text[96];
            snprintf(text, sizeof text, "{\"connected\":%d,\"seconds\":%.3f}", ready, at_s - waiting_since_s);
            say(text);
            is_waiting = false;
        }
        if (sending && at_s >= until_s && is_asker) sending = false, is_ending = true;
        /* the last ones too, if this program had no CPU: what was due counts, whenever it was sent */
        if (sending && at_s >= until_s && (rate <= 0 || began_s + (double)due_count / rate >= until_s))
            sending = false, tell_sent(at_s);
        if (is_ending && (ended == sent - refused || at_s >= until_s + ASK_END_S)) is_ending = false, tell_asked(at_s);
        next_s = send_some(at_s);
    }
}

/* Read all that comes on these sockets, until killed. */
static void swallow(const int *sockets) {
    static char part[1 << 18];
    struct epoll_event events[512];
    poller = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < count; i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.fd = sockets[i]};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, sockets[i], &e)) die("epoll");
    }
    for (;;) {
        int n = epoll_wait(poller, events, 512, -1);
        for (int i = 0; i < n; i++)
            if (read(events[i].data.fd, part, sizeof part) <= 0) exit(0);
    }
}

static int loop(size_t size, double seconds) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t room = sizeof at;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    int *writing = calloc((size_t)count, sizeof *writing), *reading = calloc((size_t)count, sizeof *reading);
    char *frame = calloc(1, size);
    if (!writing || !reading || !frame) die("memory");
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 128)) die("listen");
    getsockname(listener, (struct sockaddr *)&at, &room);
    for (int i = 0; i < count; i++) {
        reading[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (reading[i] < 0 || connect(reading[i], (struct sockaddr *)&at, sizeof at)) die("connect");
        writing[i] = accept(listener, NULL, NULL);
        if (writing[i] < 0) die("accept");
        setsockopt(writing[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    pid_t reader = fork();
    if (reader < 0) die("fork");
    if (!reader) {
        for (int i = 0; i < count; i++) close(writing[i]);
        swallow(reading);
    }
    double first_s = now_s(), last_s = first_s;
    while (last_s < first_s + seconds) {
        for (int i = 0; i < count; i++, frames++)
            if (write(writing[i], frame, size) != (ssize_t)size) die("write");
        last_s = now_s();
    }
    printf("{\"frames\":%llu,\"seconds\":%.6f,\"cpu_s\":%.6f}\n", (unsigned long long)frames, last_s - first_s, cpu_s());
    kill(reader, SIGKILL);
    waitpid(reader, NULL, 0);
    return 0;
}

int main(int argc, char **argv) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (argc == 5 && !strcmp(argv[1], "loop")) {
        role = argv[1], count = atoi(argv[2]);
        return loop((size_t)atol(argv[3]), atof(argv[4]));
    }
    if (argc != 6 || (strcmp(argv[1], "agents") && strcmp(argv[1], "watch") && strcmp(argv[1], "ask"))) {
        fprintf(stderr, "usage: generator agents|watch|ask PORT TOKENS_FILE COUNT fleethub|nats\n");
        return 2;
    }
    role = argv[1], port = atoi(argv[2]), count = atoi(argv[4]), dialect = argv[5];
    is_agents = !strcmp(role, "agents"), is_nats = !strcmp(dialect, "nats");
    is_asker = !strcmp(role, "ask");
    asked = calloc(is_asker ? COMMANDS_ROOM : 1, sizeof *asked);
    clients = calloc((size_t)count, sizeof *clients);
    shown = grown(NULL, NUMBERS * sizeof *shown);
    memset(shown, 0xff, NUMBERS * sizeof *shown);
    if (!clients) die("memory");
    read_tokens(argv[3]);
    poller = epoll_create1(EPOLL_CLOEXEC);
    fcntl(0, F_SETFL, O_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &e)) die("stdin");
    run();
    return 0;
}
