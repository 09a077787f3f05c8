package etcd

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapLogger passes etcd's log on, one level quieter: what it calls info is of
// interest to those who look for a fault.
func zapLogger(log *slog.Logger) *zap.Logger {
	return zap.New(&bridge{log: log})
}

type bridge struct {
	log    *slog.Logger
	fields []zapcore.Field
}

// early is what etcd calls an error when it is done with its election sooner than
// with its first write to disk. It tries again some seconds later.
const early = "failed to update storage version"

func levelOf(e zapcore.Entry) slog.Level {
	if e.Message == early {
		return slog.LevelDebug
	}
	return level(e.Level)
}

func level(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel:
		return slog.LevelDebug + 2
	}
	return slog.LevelDebug
}

func (b *bridge) Enabled(l zapcore.Level) bool {
	return l > zapcore.DebugLevel && b.log.Enabled(context.Background(), level(l))
}

func (b *bridge) With(fields []zapcore.Field) zapcore.Core {
	return &bridge{b.log, append(b.fields[:len(b.fields):len(b.fields)], fields...)}
}

func (b *bridge) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.Enabled(e.Level) {
		return ce.AddCore(e, b)
	}
	return ce
}

func (b *bridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(b.fields[:len(b.fields):len(b.fields)], fields...) {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields))
	for k, v := range enc.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	b.log.LogAttrs(context.Background(), levelOf(e), e.Message, attrs...)
	return nil
}

func (b *bridge) Sync() error { return nil }
