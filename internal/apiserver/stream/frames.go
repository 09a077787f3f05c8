package stream

import (
	"encoding/base64"
	"io"
	"net/http"
	"strings"

	"github.com/gorilla/websocket"
)

// Subprotocols in which a client may ask for a log over a websocket. In the
// base64 one every message is text; in the others it is the bytes themselves.
const (
	binaryFrames = "binary.k8s.io"
	base64Frames = "base64.binary.k8s.io"
)

// framed says whether a request wants its answer in websocket messages.
func framed(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// copyFrames sends what there is to read as messages, as it comes, and ends when
// the client goes away. A request that is no good handshake is answered here.
func copyFrames(w http.ResponseWriter, r *http.Request, from io.ReadCloser) {
	up := websocket.Upgrader{
		Subprotocols: []string{binaryFrames, base64Frames},
		CheckOrigin:  func(*http.Request) bool { return true }, // who asks was settled by credentials, which no browser adds by itself
	}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	go func() { // nothing is expected from the client but that it goes
		defer from.Close()
		for {
			if _, _, err := conn.NextReader(); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			kind, message := websocket.BinaryMessage, buf[:n]
			if conn.Subprotocol() == base64Frames {
				kind, message = websocket.TextMessage, []byte(base64.StdEncoding.EncodeToString(message))
			}
			if conn.WriteMessage(kind, message) != nil {
				return
			}
		}
		if err != nil {
			_ = conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""))
			return
		}
	}
}
