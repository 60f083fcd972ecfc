// Plain is the hub that one would write in an afternoon: one process, gorilla/websocket, a map of hosts and a mutex. It
// has no disk, no queue, no second process and no proof of progress; what it accepts is lost with it. It speaks as
// much of fleethub's frames as bin/bench needs, so that both are measured by the same clients.
//
//	plain AGENTS_PORT OPERATORS_PORT
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"sync"

	"github.com/gorilla/websocket"
)

const unsentMax = 4096 // frames; a subscriber that lets more wait is ended

type message struct {
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload"`
}

type heartbeat struct {
	Metrics json.RawMessage `json:"metrics"`
}

type report struct {
	CommandID string `json:"command_id"`
	Status    string `json:"status"`
}

type change struct {
	Kind   string         `json:"kind"`
	ID     string         `json:"id"`
	Fields map[string]any `json:"fields"`
}

type delta struct {
	Type    string   `json:"type"`
	Version int      `json:"version"`
	Changes []change `json:"changes"`
}

type agent struct {
	socket *websocket.Conn
	writes sync.Mutex
}

type subscriber struct{ frames chan *websocket.PreparedMessage }

type hub struct {
	mutex       sync.Mutex
	version     int
	commands    int
	hosts       map[string]json.RawMessage
	agents      map[string]*agent
	subscribers map[*subscriber]bool
}

var upgrader = websocket.Upgrader{}

func (h *hub) show(kind, id string, fields map[string]any) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.version++
	text, _ := json.Marshal(delta{"delta", h.version, []change{{kind, id, fields}}})
	frame, _ := websocket.NewPreparedMessage(websocket.TextMessage, text)
	for s := range h.subscribers {
		select {
		case s.frames <- frame:
		default:
			delete(h.subscribers, s)
			close(s.frames)
		}
	}
}

func (a *agent) say(kind string, payload any) error {
	a.writes.Lock()
	defer a.writes.Unlock()
	return a.socket.WriteJSON(map[string]any{"type": kind, "payload": payload})
}

func (h *hub) serveAgent(w http.ResponseWriter, r *http.Request) {
	socket, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer socket.Close()
	a, name := &agent{socket: socket}, ""
	for {
		_, text, err := socket.ReadMessage()
		if err != nil {
			break
		}
		var m message
		if json.Unmarshal(text, &m) != nil {
			break
		}
		switch m.Type {
		case "register":
			var who struct {
				Hostname string `json:"hostname"`
			}
			json.Unmarshal(m.Payload, &who)
			name = who.Hostname
			h.mutex.Lock()
			h.agents[name] = a
			h.mutex.Unlock()
			a.say("registered", map[string]any{"host_id": name})
		case "heartbeat":
			var beat heartbeat
			json.Unmarshal(m.Payload, &beat)
			h.mutex.Lock()
			h.hosts[name] = beat.Metrics
			h.mutex.Unlock()
			h.show("host", name, map[string]any{"presence": "online", "metrics": beat.Metrics})
		case "status":
			var told report
			json.Unmarshal(m.Payload, &told)
			h.show("command", told.CommandID, map[string]any{"id": told.CommandID, "host": name, "state": "succeeded"})
			a.say("ack", map[string]any{"command_id": told.CommandID})
		}
	}
	h.mutex.Lock()
	if h.agents[name] == a {
		delete(h.agents, name)
	}
	h.mutex.Unlock()
}

func (h *hub) serveSubscriber(w http.ResponseWriter, r *http.Request) {
	socket, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer socket.Close()
	s := &subscriber{make(chan *websocket.PreparedMessage, unsentMax)}
	h.mutex.Lock()
	hosts := []map[string]any{}
	for name, metrics := range h.hosts {
		hosts = append(hosts, map[string]any{"name": name, "metrics": metrics})
	}
	state := map[string]any{"type": "full_state", "version": h.version, "state": map[string]any{"hosts": hosts}}
	socket.WriteJSON(state)
	h.subscribers[s] = true
	h.mutex.Unlock()
	go func() {
		for { // so that a close is noticed
			if _, _, err := socket.NextReader(); err != nil {
				socket.Close()
				return
			}
		}
	}()
	for frame := range s.frames {
		if socket.WritePreparedMessage(frame) != nil {
			break
		}
	}
	h.mutex.Lock()
	delete(h.subscribers, s)
	h.mutex.Unlock()
}

func (h *hub) accept(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Op    string   `json:"op"`
		Hosts []string `json:"hosts"`
	}
	if json.NewDecoder(r.Body).Decode(&asked) != nil || len(asked.Hosts) != 1 {
		http.Error(w, "malformed", http.StatusBadRequest)
		return
	}
	h.mutex.Lock()
	h.commands++
	id, a := fmt.Sprintf("c%d", h.commands), h.agents[asked.Hosts[0]]
	h.mutex.Unlock()
	if a == nil {
		http.Error(w, "unknown host", http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	json.NewEncoder(w).Encode(map[string]any{"commands": []map[string]any{{"id": id, "host": asked.Hosts[0]}}})
	go a.say("command", map[string]any{"command": asked.Op, "command_id": id, "attempt": 1, "ttl_s": 60})
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: plain AGENTS_PORT OPERATORS_PORT")
	}
	h := &hub{hosts: map[string]json.RawMessage{}, agents: map[string]*agent{}, subscribers: map[*subscriber]bool{}}
	agents, operators := http.NewServeMux(), http.NewServeMux()
	agents.HandleFunc("/ws", h.serveAgent)
	operators.HandleFunc("/ws", h.serveSubscriber)
	operators.HandleFunc("POST /api/v1/commands", h.accept)
	for number, serving := range map[int]*http.ServeMux{1: agents, 2: operators} {
		port, _ := strconv.Atoi(os.Args[number])
		go func() { log.Fatal(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", port), serving)) }()
	}
	select {}
}
