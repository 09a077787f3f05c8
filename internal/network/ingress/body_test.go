package ingress

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Bodies of any size pass whole, and without being kept in memory.
func TestLargeUpload(t *testing.T) {
	const size = 32 << 20
	sum := func(r io.Reader) string {
		h := sha256.New()
		n, err := io.Copy(h, r)
		return fmt.Sprintf("%d %v %x", n, err, h.Sum(nil))
	}
	content := func() io.Reader { return io.LimitReader(rand.New(rand.NewSource(1)), size) }
	want := sum(content())
	addr, _ := pod(t, func(w http.ResponseWriter, req *http.Request) { io.WriteString(w, sum(req.Body)) })
	s := serve(t, HTTP, Options{})
	s.endpoints(addr)
	for _, length := range []int64{size, -1} {
		for _, h2 := range []bool{false, true} {
			client := &http.Transport{Protocols: new(http.Protocols)}
			client.Protocols.SetUnencryptedHTTP2(h2)
			client.Protocols.SetHTTP1(!h2)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			req, _ := http.NewRequest("POST", s.url, content())
			req.ContentLength = length
			resp, err := client.RoundTrip(req)
			if err != nil {
				t.Fatalf("length %d, HTTP/2 %v: %v", length, h2, err)
			}
			if got, _ := io.ReadAll(resp.Body); string(got) != want {
				t.Errorf("length %d, HTTP/2 %v: got %s, want %s", length, h2, got, want)
			}
			runtime.ReadMemStats(&after)
			if used := after.TotalAlloc - before.TotalAlloc; used > size/2 {
				t.Errorf("length %d, HTTP/2 %v: %d MB were allocated", length, h2, used>>20)
			}
			client.CloseIdleConnections()
		}
	}
}

// An answer that comes while the request is still being sent is passed on, in
// pieces, and takes nothing from the request.
func TestAnswerBeforeTheRequestEnds(t *testing.T) {
	s := serve(t, HTTP, Options{})
	addr, _ := pod(t, func(w http.ResponseWriter, req *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		lines := bufio.NewScanner(req.Body)
		for lines.Scan() {
			fmt.Fprintln(w, "got", lines.Text())
			w.(http.Flusher).Flush()
		}
	})
	s.endpoints(addr)
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	line := func(text string) { fmt.Fprintf(c, "%x\r\n%s\n\r\n", len(text)+1, text) }
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	line("0")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(resp.Body)
	for i := range 100 {
		if got, err := r.ReadString('\n'); got != fmt.Sprintf("got %d\n", i) {
			t.Fatalf("%q %v", got, err)
		}
		line(fmt.Sprint(i + 1))
	}
	io.WriteString(c, "0\r\n\r\n")
	if rest, err := io.ReadAll(r); string(rest) != "got 100\n" || err != nil {
		t.Errorf("%q %v", rest, err)
	}
}

// A client whose request nobody wants gets the answer although it stalls, and
// what it sends later is no request.
func TestAnswerToAClientThatStalls(t *testing.T) {
	s := serve(t, HTTP, Options{})
	smuggled := make(chan string, 1)
	addr, _ := pod(t, func(w http.ResponseWriter, req *http.Request) {
		if req.Method == "GET" {
			smuggled <- req.URL.Path
		}
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		io.WriteString(w, "too much")
	})
	s.endpoints(addr)
	for _, header := range []string{"Content-Length: 100000", "Transfer-Encoding: chunked"} {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\n"+header+"\r\n\r\n4\r\nxxxx\r\n")
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("%s: %v", header, err)
		}
		if body, err := io.ReadAll(resp.Body); resp.StatusCode != 413 || string(body) != "too much" || !resp.Close || err != nil {
			t.Errorf("%s: %d %q %v, close %v", header, resp.StatusCode, body, err, resp.Close)
		}
		if a := <-s.access; a.Status != 413 {
			t.Errorf("%s: %+v", header, a)
		}
		io.WriteString(c, "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
		if rest, err := io.ReadAll(r); len(rest) > 0 {
			t.Errorf("%s: the connection went on: %q %v", header, rest, err)
		}
	}
	select {
	case path := <-smuggled:
		t.Errorf("%s was taken for a request", path)
	default:
	}
}

// A client that breaks off is no fault of the endpoint.
func TestClientThatBreaksOff(t *testing.T) {
	s := serve(t, HTTP, Options{})
	addr, _ := pod(t, echo)
	s.endpoints(addr)
	for _, size := range []int{100, bufferedBody + 100} {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", size, bytes.Repeat([]byte("x"), 50))
		c.(*net.TCPConn).CloseWrite()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode/100 != 4 {
			t.Errorf("size %d: %v %v, want 4xx", size, resp, err)
		}
	}
}

// The client waits for leave to send, the endpoint knows nothing of that.
func TestExpectContinue(t *testing.T) {
	s := serve(t, HTTP, Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err == nil {
				body, _ := io.ReadAll(req.Body)
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
			}
			c.Close()
		}
	}()
	s.endpoints(l.Addr().String())
	started := time.Now()
	client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute}}
	defer client.CloseIdleConnections()
	req, _ := http.NewRequest("POST", s.url, strings.NewReader("hello"))
	req.Header.Set("Expect", "100-continue")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(resp.Body); string(body) != "hello" || time.Since(started) > 900*time.Millisecond {
		t.Errorf("%q after %v", body, time.Since(started))
	}
}
