package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	lumberjack "gopkg.in/natefinch/lumberjack.v2"

	"github.com/proa-dev/proa/internal/apiserver/auth/callout"
	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
)

// Options are what the --audit-* flags say.
type Options struct {
	PolicyFile string
	Log        LogOptions
	Webhook    WebhookOptions
	// Servers looks at the certificate of the webhook; nil = nobody does.
	Servers *metrics.Servers
}

// LogOptions of the log file; Path "" = none, "-" = standard output.
type LogOptions struct {
	Path                        string
	MaxAge, MaxBackups, MaxSize int // days, files, megabytes; 0 = no end
	Format                      string
	Version                     string
	Compress                    bool
	Delivery
}

// WebhookOptions of the webhook; ConfigFile "" = none.
type WebhookOptions struct {
	ConfigFile     string
	InitialBackoff time.Duration
	Version        string
	Delivery
}

// Delivery is how events get to a sink.
type Delivery struct {
	Mode string
	Batch
	Truncate                        bool
	TruncateMaxBatch, TruncateEvent int64 // bytes
}

// Modes of a Delivery.
const (
	ModeBatch    = "batch"           // in the background; what the buffer does not hold is lost
	ModeBlocking = "blocking"        // the request waits
	ModeStrict   = "blocking-strict" // and is refused when it cannot be recorded
)

var modes = []string{ModeBatch, ModeBlocking, ModeStrict}

// Defaults of the flags, as upstream has them.
func Defaults() Options {
	d := Delivery{Mode: ModeBlocking, TruncateMaxBatch: 10 << 20, TruncateEvent: 100 << 10, Batch: Batch{Buffer: 10000, MaxSize: 1}}
	o := Options{
		Log:     LogOptions{MaxAge: 366, MaxBackups: 100, MaxSize: 100, Format: "json", Version: version, Delivery: d},
		Webhook: WebhookOptions{InitialBackoff: 10 * time.Second, Version: version, Delivery: d},
	}
	o.Webhook.Mode = ModeBatch
	o.Webhook.Batch = Batch{Buffer: 10000, MaxSize: 400, MaxWait: 30 * time.Second, Throttle: true, QPS: 10, Burst: 15}
	return o
}

const version = "audit.k8s.io/v1"

// Check the flags. The error names the flag and what to write.
func (o *Options) Check() error {
	var all []error
	if l := &o.Log; l.Path != "" {
		all = append(all, l.Delivery.check("log", l.Version))
		if l.Format != "json" && l.Format != "legacy" {
			all = append(all, fmt.Errorf("--audit-log-format %q: write json or legacy", l.Format))
		}
		for flag, n := range map[string]int{"maxage": l.MaxAge, "maxbackup": l.MaxBackups, "maxsize": l.MaxSize} {
			if n < 0 {
				all = append(all, fmt.Errorf("--audit-log-%s %d: write 0, for no end, or more", flag, n))
			}
		}
	}
	if h := &o.Webhook; h.ConfigFile != "" {
		all = append(all, h.Delivery.check("webhook", h.Version))
	}
	return errors.Join(all...)
}

func (d *Delivery) check(to, v string) error {
	var all []error
	bad := func(flag string, value any, write string) {
		all = append(all, fmt.Errorf("--audit-%s-%s %v: write %s", to, flag, value, write))
	}
	if !slices.Contains(modes, d.Mode) {
		bad("mode", d.Mode, strings.Join(modes, ", "))
	}
	if v != version {
		bad("version", v, version)
	}
	if d.Mode == ModeBatch {
		if d.Buffer <= 0 {
			bad("batch-buffer-size", d.Buffer, "a number above 0")
		}
		if d.MaxSize <= 0 {
			bad("batch-max-size", d.MaxSize, "a number above 0")
		}
		if d.Throttle && d.QPS <= 0 {
			bad("batch-throttle-qps", d.QPS, "a number above 0")
		}
		if d.Throttle && d.Burst <= 0 {
			bad("batch-throttle-burst", d.Burst, "a number above 0")
		}
	}
	if d.TruncateEvent <= 0 {
		bad("truncate-max-event-size", d.TruncateEvent, "a number above 0")
	}
	if d.TruncateMaxBatch < d.TruncateEvent {
		bad("truncate-max-batch-size", d.TruncateMaxBatch, "as much as an event may have, or more")
	}
	return errors.Join(all...)
}

// Open the log that the options describe: nil when there is no policy, or nowhere
// to write to.
func (o *Options) Open(log *slog.Logger) (*Log, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if o.PolicyFile == "" {
		if o.Log.Path != "" || o.Webhook.ConfigFile != "" {
			log.Warn("nothing will be audited: there is no policy; name one with --audit-policy-file")
		}
		return nil, nil
	}
	p, problems, err := ReadPolicy(o.PolicyFile)
	if err != nil {
		return nil, fmt.Errorf("--audit-policy-file: %w", err)
	}
	for _, problem := range problems {
		log.Warn("the audit policy says what nobody understands; it is ignored", "file", o.PolicyFile, "problem", problem)
	}
	l := newLog(p, log)
	if o.Log.Path != "" {
		out, err := o.Log.open()
		if err != nil {
			return nil, fmt.Errorf("--audit-log-path: %w (choose a file that can be written)", err)
		}
		f := &file{out: out, legacy: o.Log.Format == "legacy"}
		l.sinks = append(l.sinks, o.Log.Delivery.deliver(l, pluginLog, func(_ context.Context, all []entry) error { return f.put(all...) }))
	}
	if o.Webhook.ConfigFile != "" {
		c, err := callout.Open(o.Webhook.ConfigFile, callout.Options{First: o.Webhook.InitialBackoff, Again: callout.Always, Servers: o.Servers})
		if err != nil {
			return nil, fmt.Errorf("--audit-webhook-config-file: %w", err)
		}
		l.sinks = append(l.sinks, o.Webhook.Delivery.deliver(l, pluginWebhook, (&hook{c}).send))
	}
	if len(l.sinks) == 0 {
		log.Warn("nothing will be audited: name a file with --audit-log-path, or a webhook with --audit-webhook-config-file")
		return nil, nil
	}
	return l, nil
}

// deliver to what send is the way to, as is asked for.
func (d *Delivery) deliver(l *Log, plugin string, send func(ctx context.Context, all []entry) error) sink {
	within := func(ctx context.Context) sink {
		var to sink = &noting{sender{ctx, send}, plugin, l}
		if d.Truncate {
			to = &truncate{to: to, maxEvent: d.TruncateEvent, maxBatch: d.TruncateMaxBatch, log: l}
		}
		return to
	}
	switch d.Mode {
	case ModeBatch:
		return newQueue(d.Batch, l, func(ctx context.Context, all []entry) error { return within(ctx).put(all...) })
	case ModeBlocking:
		return careless{within(context.Background())}
	}
	return within(context.Background())
}

// sender is a function as a sink.
type sender struct {
	ctx  context.Context //nolint:containedctx // of the batch, or of nothing in particular
	send func(ctx context.Context, all []entry) error
}

func (s sender) put(all ...entry) error { return s.send(s.ctx, all) }

func (o *LogOptions) open() (io.Writer, error) {
	if o.Path == "-" {
		return os.Stdout, nil
	}
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(o.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) // find out now whether it can be written
	if err != nil || o.MaxSize == 0 {
		return f, err
	}
	f.Close()
	return &lumberjack.Logger{Filename: o.Path, MaxAge: o.MaxAge, MaxBackups: o.MaxBackups, MaxSize: o.MaxSize, Compress: o.Compress}, nil
}
