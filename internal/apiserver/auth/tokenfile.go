package auth

import (
	"context"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// TokenFile authenticates tokens of a file (--token-auth-file). It keeps their
// hashes alone.
type TokenFile map[[sha256.Size]byte]*request.User

// ReadTokenFile of CSV: TOKEN,USER,UID[,"GROUP,GROUP…"] on each line. An error
// names the line, never what is on it.
func ReadTokenFile(file string) (TokenFile, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord = -1
	all := TokenFile{}
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		line, _ := r.FieldPos(0)
		if len(record) < 3 || record[0] == "" {
			return nil, fmt.Errorf(`%s:%d: write TOKEN,USER,UID and, if there are groups, ,"GROUP,GROUP"`, file, line)
		}
		u := &request.User{Name: record[1], UID: record[2]}
		if len(record) > 3 {
			u.Groups = strings.Split(record[3], ",")
		}
		all[sha256.Sum256([]byte(record[0]))] = u
	}
}

// AuthenticateToken implements TokenAuthenticator.
func (t TokenFile) AuthenticateToken(_ context.Context, token string, audiences []string) (*request.User, []string, error) {
	return t[sha256.Sum256([]byte(token))], audiences, nil
}
