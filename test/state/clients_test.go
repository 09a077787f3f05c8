package state

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// asLoad makes this binary the clients of TestOverload.
const asLoad = "PROA_TEST_IS_LOAD"

// heavyShare is how many heavy clients share a connection: what they are about are
// seats, not handshakes.
const heavyShare = 25

// plan of a load: so many clients, each with a connection of its own unless Heavy.
type plan struct {
	Server  string
	CA      string
	CAData  []byte
	Clients int
	Lasts   time.Duration
	Tokens  []string
	Heavy   bool // each request holds a seat for long: see loadClient.heavy
}

// loadMain reads a plan, carries it out and writes how often what was answered.
func loadMain() int {
	var p plan
	if err := json.NewDecoder(os.Stdin).Decode(&p); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if p.CA != "" {
		var err error
		if p.CAData, err = os.ReadFile(p.CA); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.CAData)
	ctx, cancel := context.WithTimeout(context.Background(), p.Lasts)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	sum := map[string]int{}
	var transport *http.Transport
	for i := range p.Clients {
		if !p.Heavy || i%heavyShare == 0 {
			transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
		}
		c := &loadClient{id: i, server: p.Server, token: p.Tokens[i%len(p.Tokens)], got: map[string]int{}, http: &http.Client{
			Timeout: 70 * time.Second, Transport: transport,
		}}
		ask := c.run
		if p.Heavy {
			ask = c.heavy
		}
		wg.Go(func() {
			ask(ctx)
			mu.Lock()
			defer mu.Unlock()
			for k, n := range c.got {
				sum[k] += n
			}
		})
	}
	wg.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(sum); err != nil {
		return 1
	}
	return 0
}

// loadClient asks for one kind of thing as fast as it gets it.
type loadClient struct {
	id            int
	server, token string
	http          *http.Client
	connected     bool // it was served before
	got           map[string]int
}

// noConnection begins what is counted of a client that never was served: the
// handshake has its time limits on both sides.
const noConnection = "no connection: "

func (c *loadClient) run(ctx context.Context) {
	const maps = "/api/v1/namespaces/default/configmaps"
	for n := 0; ctx.Err() == nil; n++ {
		switch name := fmt.Sprintf("c%d-%d", c.id, n); c.id % 10 {
		case 0, 1, 2:
			c.ask(ctx, "GET", "/api/v1/configmaps", "", 0)
		case 3:
			c.ask(ctx, "GET", "/api/v1/namespaces/many/configmaps?labelSelector=app%3D7", "", 0)
		case 4: // takes its time to read
			c.ask(ctx, "GET", "/api/v1/configmaps", "", 20*time.Millisecond)
		case 5, 6:
			c.ask(ctx, "GET", fmt.Sprintf("/api/v1/namespaces/many/configmaps/o%06d", n%(loadObjects/2)), "", 0)
		case 7, 8:
			if c.ask(ctx, "POST", maps, `{"metadata":{"name":"`+name+`"},"data":{"a":"`+strings.Repeat("x", 1000)+`"}}`, 0) {
				c.ask(ctx, "DELETE", maps+"/"+name, "", 0)
			}
		case 9:
			c.ask(ctx, "GET", maps+"?watch=1&timeoutSeconds=5", "", 0)
		}
	}
}

// hangs is the label of what a webhook takes its time over.
const hangs = "hangs"

// heavy asks for what takes long: large answers that are read slowly, and writes that
// wait for a webhook.
func (c *loadClient) heavy(ctx context.Context) {
	const maps = "/api/v1/namespaces/default/configmaps"
	for n := 0; ctx.Err() == nil; n++ {
		switch name := fmt.Sprintf("h%d-%d", c.id, n); c.id % 4 {
		case 0, 1:
			c.ask(ctx, "GET", "/api/v1/configmaps", "", 20*time.Millisecond)
		case 2:
			c.ask(ctx, "GET", "/api/v1/configmaps?labelSelector=app%3D7", "", 0)
		case 3:
			c.ask(ctx, "POST", maps, `{"metadata":{"name":"`+name+`","labels":{"`+hangs+`":""}}}`, 0)
		}
	}
}

// ask once, and read the answer, with a rest after each piece. It says whether the
// server did it; who is told to come back later does.
func (c *loadClient) ask(ctx context.Context, method, path, body string, rest time.Duration) bool {
	r, err := http.NewRequestWithContext(ctx, method, c.server+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set("Content-Type", "application/json")
	answer, err := c.http.Do(r)
	if err == nil {
		err = drain(ctx, answer.Body, rest)
		answer.Body.Close()
	}
	switch {
	case ctx.Err() != nil: // the end came first
		return false
	case err != nil:
		what := short(err)
		if !c.connected {
			what = noConnection + what
		}
		c.got[what]++
		return false
	case answer.StatusCode == http.StatusTooManyRequests:
		c.got["429"]++
		if answer.Header.Get("Retry-After") == "" {
			c.got["429 without Retry-After"]++
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
		return false
	case answer.StatusCode >= 300:
		c.got[fmt.Sprint(method, " ", answer.StatusCode)]++
		return false
	}
	c.got["served"]++
	c.connected = true
	return true
}

func drain(ctx context.Context, body io.Reader, rest time.Duration) error {
	if rest == 0 {
		_, err := io.Copy(io.Discard, body)
		return err
	}
	for {
		if _, err := io.CopyN(io.Discard, body, 64<<10); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rest):
		}
	}
}

// short form of an error: without what differs from one to the next.
func short(err error) string {
	s := err.Error()
	if i := strings.LastIndex(s, ": "); i >= 0 {
		s = s[i+2:]
	}
	return s
}
