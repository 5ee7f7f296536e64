// franz-go through the plan. Its default balancer is cooperative-sticky, so the
// group's rebalances here are incremental ones.
package main

import (
	"context"
	"errors"
	"log"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"klamm.clients/plan"
)

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

func within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), plan.Wait)
}

// sender has one idempotent producer a codec, open over the restart.
type sender struct {
	p         *plan.Plan
	producers []*kgo.Client
	acked     int
}

func newSender(p *plan.Plan) *sender {
	s := &sender{p: p}
	for _, codec := range plan.Codecs {
		client, err := kgo.NewClient(
			kgo.SeedBrokers(p.Bootstrap),
			kgo.DefaultProduceTopic(p.Topic),
			kgo.RequiredAcks(kgo.AllISRAcks()),
			kgo.ProducerBatchCompression(codecs[codec]),
			kgo.ProducerLinger(5*time.Millisecond),
		)
		plan.Need(err, "producer")
		s.producers = append(s.producers, client)
	}
	return s
}

func (s *sender) send(stage int) {
	for i, producer := range s.producers {
		low, high := plan.Range(stage, i)
		var records []*kgo.Record
		for n := low; n < high; n++ {
			r := s.p.Record(n)
			record := &kgo.Record{Key: []byte(r.Key), Value: []byte(r.Value), Timestamp: time.UnixMilli(r.Timestamp)}
			for _, h := range r.Headers {
				record.Headers = append(record.Headers, kgo.RecordHeader{Key: h.Key, Value: []byte(h.Value)})
			}
			records = append(records, record)
		}
		ctx, cancel := within()
		err := producer.ProduceSync(ctx, records...).FirstErr()
		cancel()
		if err != nil {
			plan.Must("produce", false, "%s: %v", plan.Codecs[i], err)
		}
		s.acked += len(records)
	}
}

// member is one consumer of the group.
type member struct {
	client *kgo.Client
	ledger *plan.Ledger
	read   int
	first  map[int32]int64

	mu    sync.Mutex
	parts map[int32]bool
}

func newMember(p *plan.Plan, l *plan.Ledger) *member {
	m := &member{ledger: l, first: map[int32]int64{}, parts: map[int32]bool{}}
	change := func(owned bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, changed map[string][]int32) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, partition := range changed[p.Topic] {
				if owned {
					m.parts[partition] = true
				} else {
					delete(m.parts, partition)
				}
			}
		}
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(p.Bootstrap),
		kgo.ConsumerGroup(p.Group),
		kgo.ConsumeTopics(p.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.SessionTimeout(10*time.Second),
		kgo.OnPartitionsAssigned(change(true)),
		kgo.OnPartitionsRevoked(change(false)),
		kgo.OnPartitionsLost(change(false)),
	)
	plan.Need(err, "consumer")
	m.client = client
	return m
}

func (m *member) owned() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.parts))
}

func (m *member) poll() {
	poll(m.client, func(r *kgo.Record) {
		if _, known := m.first[r.Partition]; !known {
			m.first[r.Partition] = r.Offset
		}
		m.read++
		take(m.ledger, r)
	})
}

func (m *member) commit() {
	ctx, cancel := within()
	defer cancel()
	plan.Need(m.client.CommitUncommittedOffsets(ctx), "commit")
}

func poll(client *kgo.Client, each func(*kgo.Record)) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	fetches := client.PollFetches(ctx)
	for _, e := range fetches.Errors() {
		if !errors.Is(e.Err, context.DeadlineExceeded) {
			plan.Need(e.Err, "fetch")
		}
	}
	fetches.EachRecord(each)
}

func take(l *plan.Ledger, r *kgo.Record) {
	got := plan.Record{Key: string(r.Key), Value: string(r.Value), Timestamp: r.Timestamp.UnixMilli()}
	for _, h := range r.Headers {
		got.Headers = append(got.Headers, plan.Header{Key: h.Key, Value: string(h.Value)})
	}
	l.Add(plan.Place{Partition: r.Partition, Offset: r.Offset}, got)
}

func committed(p *plan.Plan, admin *kadm.Client) map[int32]int64 {
	found := map[int32]int64{}
	ask := func() {
		ctx, cancel := within()
		defer cancel()
		answer, err := admin.FetchOffsets(ctx, p.Group)
		if err == nil {
			err = answer.Error()
		}
		if err != nil {
			// After the restart: the old connection is gone, and the coordinator
			// may still load. The wait around this has an end.
			log.Printf("committed offsets: %v", err)
			time.Sleep(20 * time.Millisecond)
			return
		}
		answer.Each(func(o kadm.OffsetResponse) { found[o.Partition] = o.At })
	}
	plan.Until(func() bool { return len(found) == plan.Partitions }, ask, "the committed offsets")
	return found
}

func lookup(p *plan.Plan, admin *kadm.Client, ms int64) map[int32]int64 {
	ctx, cancel := within()
	defer cancel()
	answer, err := admin.ListOffsetsAfterMilli(ctx, ms, p.Topic)
	plan.Need(err, "offsets by timestamp")
	plan.Need(answer.Error(), "offsets by timestamp")
	found := map[int32]int64{}
	answer.Each(func(o kadm.ListedOffset) {
		// Where no record is so late, kadm puts in the end offset, with no time.
		found[o.Partition] = o.Offset
		if o.Timestamp < 0 {
			found[o.Partition] = -1
		}
	})
	return found
}

func main() {
	p := plan.FromArguments()
	client, err := kgo.NewClient(kgo.SeedBrokers(p.Bootstrap))
	plan.Need(err, "client")
	admin := kadm.NewClient(client)
	ctx, cancel := within()
	created, err := admin.CreateTopic(ctx, plan.Partitions, 1, nil, p.Topic)
	plan.Need(err, "create topic")
	plan.Need(created.Err, "create topic")
	topics, err := admin.ListTopics(ctx, p.Topic)
	plan.Need(err, "metadata")
	cancel()
	plan.Must("create", len(topics[p.Topic].Partitions) == plan.Partitions, "%d partitions", len(topics[p.Topic].Partitions))

	s, seen := newSender(p), plan.NewLedger(p)
	has := func(stage int) func() bool { return func() bool { return seen.Has(plan.Stages[stage][1]) } }
	s.send(0)
	a := newMember(p, seen)
	plan.Until(has(0), a.poll, "A to read stage 0")
	a.commit()

	b := newMember(p, seen)
	both := func() { a.poll(); b.poll() }
	plan.Until(func() bool { return plan.Split(a.owned(), b.owned()) }, both, "A and B to share the partitions")
	plan.Check("join", true, "A has %v, B has %v", a.owned(), b.owned())
	s.send(1)
	plan.Until(has(1), both, "A and B to read stage 1")
	a.commit()
	b.commit()

	a.client.Close()
	plan.Until(func() bool { return len(b.owned()) == plan.Partitions }, b.poll, "B to get A's partitions")
	s.send(2)
	plan.Until(has(2), b.poll, "B to read stage 2")
	plan.Check("leave", b.read > 0, "A read %d, B %d", a.read, b.read)
	b.commit()
	before := committed(p, admin)
	b.client.Close()

	plan.AwaitRestart()
	after := committed(p, admin)
	ok := maps.Equal(before, after) && maps.Equal(after, seen.Next())
	plan.Check("commit", ok, "before the restart %v, after %v, read up to %v", before, after, seen.Next())
	s.send(3)
	plan.Check("produce", s.acked == plan.All, "%d acknowledged", s.acked)
	c := newMember(p, seen)
	plan.Until(has(3), c.poll, "C to read stage 3")
	ok = maps.Equal(c.first, after) && c.read == plan.All-plan.BeforeRestart
	plan.Check("resume", ok, "C read %d, from %v", c.read, c.first)
	c.commit()
	c.client.Close()

	again := plan.NewLedger(p)
	reader, err := kgo.NewClient(
		kgo.SeedBrokers(p.Bootstrap), kgo.ConsumeTopics(p.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	plan.Need(err, "reader")
	read := func() { poll(reader, func(r *kgo.Record) { take(again, r) }) }
	plan.Until(func() bool { return again.Has(plan.All) }, read, "the read from the beginning")
	plan.CheckTimestamps(p, again, func(ms int64) map[int32]int64 { return lookup(p, admin, ms) })
	plan.CheckLedgers(seen, again)
}
