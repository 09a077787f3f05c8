package stream

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

func TestLogFrames(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !framed(r) {
			t.Error("the request does not look like a websocket's")
		}
		copyFrames(w, r, io.NopCloser(strings.NewReader("one\ntwo\n")))
	}))
	defer s.Close()
	for _, protocol := range []string{"", binaryFrames, base64Frames} {
		d := websocket.Dialer{}
		if protocol != "" {
			d.Subprotocols = []string{protocol}
		}
		conn, _, err := d.Dial("ws"+strings.TrimPrefix(s.URL, "http"), nil)
		if err != nil {
			t.Fatal(protocol, err)
		}
		var got strings.Builder
		for {
			kind, m, err := conn.ReadMessage()
			if err != nil {
				if !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
					t.Error(protocol, err)
				}
				break
			}
			if protocol == base64Frames {
				if kind != websocket.TextMessage {
					t.Error("base64 has to be text")
				}
				if m, err = base64.StdEncoding.DecodeString(string(m)); err != nil {
					t.Error(err)
				}
			}
			got.Write(m)
		}
		conn.Close()
		if got.String() != "one\ntwo\n" {
			t.Errorf("%q: got %q", protocol, got.String())
		}
	}
}
