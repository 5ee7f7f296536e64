// sarama through the plan. Its consumers push: each claimed partition is read by
// a goroutine of its own, and the program waits for what the ledger shows.
package main

import (
	"context"
	"errors"
	"log"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"klamm.clients/plan"
)

var codecs = map[string]sarama.CompressionCodec{
	"none":   sarama.CompressionNone,
	"gzip":   sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy,
	"lz4":    sarama.CompressionLZ4,
	"zstd":   sarama.CompressionZSTD,
}

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	c.Consumer.Group.Session.Timeout = 10 * time.Second
	c.Consumer.Return.Errors = true
	return c
}

// sender has one idempotent producer a codec, open over the restart.
type sender struct {
	p         *plan.Plan
	producers []sarama.SyncProducer
	acked     int
}

func newSender(p *plan.Plan) *sender {
	s := &sender{p: p}
	for _, codec := range plan.Codecs {
		c := config()
		c.Net.MaxOpenRequests = 1 // sarama asks for this of an idempotent producer
		c.Producer.Idempotent = true
		c.Producer.RequiredAcks = sarama.WaitForAll
		c.Producer.Compression = codecs[codec]
		c.Producer.Return.Successes = true
		c.Producer.Flush.Frequency = 5 * time.Millisecond
		c.Producer.Retry.Max = 30
		producer, err := sarama.NewSyncProducer([]string{p.Bootstrap}, c)
		plan.Need(err, "producer")
		s.producers = append(s.producers, producer)
	}
	return s
}

func (s *sender) send(stage int) {
	for i, producer := range s.producers {
		low, high := plan.Range(stage, i)
		var messages []*sarama.ProducerMessage
		for n := low; n < high; n++ {
			r := s.p.Record(n)
			message := &sarama.ProducerMessage{
				Topic: s.p.Topic, Key: sarama.StringEncoder(r.Key), Value: sarama.StringEncoder(r.Value),
				Timestamp: time.UnixMilli(r.Timestamp),
			}
			for _, h := range r.Headers {
				message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: []byte(h.Value)})
			}
			messages = append(messages, message)
		}
		if err := producer.SendMessages(messages); err != nil {
			plan.Must("produce", false, "%s: %v", plan.Codecs[i], err)
		}
		s.acked += len(messages)
	}
}

// member is one consumer of the group; its methods Setup, Cleanup and
// ConsumeClaim are called by sarama for each generation.
type member struct {
	topic  string
	ledger *plan.Ledger
	group  sarama.ConsumerGroup
	stop   context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	session sarama.ConsumerGroupSession
	parts   []int32
	first   map[int32]int64
	read    int
}

func newMember(p *plan.Plan, l *plan.Ledger) *member {
	group, err := sarama.NewConsumerGroup([]string{p.Bootstrap}, p.Group, config())
	plan.Need(err, "consumer")
	ctx, stop := context.WithCancel(context.Background())
	m := &member{topic: p.Topic, ledger: l, group: group, stop: stop, done: make(chan struct{}), first: map[int32]int64{}}
	go func() {
		for err := range group.Errors() {
			log.Printf("group: %v", err)
		}
	}()
	go func() {
		defer close(m.done)
		for ctx.Err() == nil {
			err := group.Consume(ctx, []string{p.Topic}, m)
			if err != nil && !errors.Is(err, sarama.ErrClosedConsumerGroup) {
				log.Printf("consume: %v", err)
			}
		}
	}()
	return m
}

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.session, m.parts = session, slices.Clone(session.Claims()[m.topic])
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.session, m.parts = nil, nil
	return nil
}

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			m.mu.Lock()
			if _, known := m.first[message.Partition]; !known {
				m.first[message.Partition] = message.Offset
			}
			m.read++
			m.mu.Unlock()
			// Marked before it is counted: whoever sees it counted may commit.
			session.MarkMessage(message, "")
			take(m.ledger, message)
		case <-session.Context().Done():
			return nil
		}
	}
}

func (m *member) owned() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.parts)
}

func (m *member) counts() (int, map[int32]int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.read, maps.Clone(m.first)
}

func (m *member) commit() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == nil {
		plan.GiveUp("commit: the member is in no generation")
	}
	m.session.Commit()
}

func (m *member) leave() {
	m.stop()
	<-m.done
	plan.Need(m.group.Close(), "leave")
}

func take(l *plan.Ledger, m *sarama.ConsumerMessage) {
	got := plan.Record{Key: string(m.Key), Value: string(m.Value), Timestamp: m.Timestamp.UnixMilli()}
	for _, h := range m.Headers {
		got.Headers = append(got.Headers, plan.Header{Key: string(h.Key), Value: string(h.Value)})
	}
	l.Add(plan.Place{Partition: m.Partition, Offset: m.Offset}, got)
}

// pause between two looks at what the goroutines have done.
func pause() { time.Sleep(10 * time.Millisecond) }

func committed(p *plan.Plan, admin sarama.ClusterAdmin) map[int32]int64 {
	found := map[int32]int64{}
	ask := func() {
		answer, err := admin.ListConsumerGroupOffsets(p.Group, map[string][]int32{p.Topic: {0, 1, 2}})
		if err == nil && answer.Err != sarama.ErrNoError {
			err = answer.Err
		}
		for partition := range int32(plan.Partitions) {
			if err == nil {
				block := answer.GetBlock(p.Topic, partition)
				if block == nil {
					plan.GiveUp("committed offsets: no answer for partition %d", partition)
				}
				if block.Err != sarama.ErrNoError {
					err = block.Err
				} else {
					found[partition] = block.Offset
				}
			}
		}
		if err != nil {
			// After the restart: the old connection is gone, and the coordinator
			// may still load. The wait around this has an end.
			log.Printf("committed offsets: %v", err)
			clear(found)
			pause()
		}
	}
	plan.Until(func() bool { return len(found) == plan.Partitions }, ask, "the committed offsets")
	return found
}

func readAll(p *plan.Plan, client sarama.Client, l *plan.Ledger) {
	consumer, err := sarama.NewConsumerFromClient(client)
	plan.Need(err, "reader")
	for partition := range int32(plan.Partitions) {
		claim, err := consumer.ConsumePartition(p.Topic, partition, sarama.OffsetOldest)
		plan.Need(err, "reader")
		go func() {
			for err := range claim.Errors() {
				log.Printf("reader: %v", err)
			}
		}()
		go func() {
			for message := range claim.Messages() {
				take(l, message)
			}
		}()
	}
	plan.Until(func() bool { return l.Has(plan.All) }, pause, "the read from the beginning")
}

func main() {
	sarama.Logger = log.New(os.Stderr, "sarama: ", log.LstdFlags)
	p := plan.FromArguments()
	admin, err := sarama.NewClusterAdmin([]string{p.Bootstrap}, config())
	plan.Need(err, "admin")
	plan.Need(admin.CreateTopic(p.Topic, &sarama.TopicDetail{NumPartitions: plan.Partitions, ReplicationFactor: 1}, false), "create topic")
	topics, err := admin.DescribeTopics([]string{p.Topic})
	plan.Need(err, "metadata")
	plan.Must("create", len(topics[0].Partitions) == plan.Partitions, "%d partitions", len(topics[0].Partitions))

	s, seen := newSender(p), plan.NewLedger(p)
	has := func(stage int) func() bool { return func() bool { return seen.Has(plan.Stages[stage][1]) } }
	s.send(0)
	a := newMember(p, seen)
	plan.Until(has(0), pause, "A to read stage 0")
	a.commit()

	b := newMember(p, seen)
	plan.Until(func() bool { return plan.Split(a.owned(), b.owned()) }, pause, "A and B to share the partitions")
	plan.Check("join", true, "A has %v, B has %v", a.owned(), b.owned())
	s.send(1)
	plan.Until(has(1), pause, "A and B to read stage 1")
	a.commit()
	b.commit()

	a.leave()
	plan.Until(func() bool { return len(b.owned()) == plan.Partitions }, pause, "B to get A's partitions")
	s.send(2)
	plan.Until(has(2), pause, "B to read stage 2")
	readA, _ := a.counts()
	readB, _ := b.counts()
	plan.Check("leave", readB > 0, "A read %d, B %d", readA, readB)
	b.commit()
	before := committed(p, admin)
	b.leave()

	plan.AwaitRestart()
	after := committed(p, admin)
	ok := maps.Equal(before, after) && maps.Equal(after, seen.Next())
	plan.Check("commit", ok, "before the restart %v, after %v, read up to %v", before, after, seen.Next())
	s.send(3)
	plan.Check("produce", s.acked == plan.All, "%d acknowledged", s.acked)
	c := newMember(p, seen)
	plan.Until(has(3), pause, "C to read stage 3")
	read, first := c.counts()
	plan.Check("resume", maps.Equal(first, after) && read == plan.All-plan.BeforeRestart, "C read %d, from %v", read, first)
	c.commit()
	c.leave()

	client, err := sarama.NewClient([]string{p.Bootstrap}, config())
	plan.Need(err, "client")
	again := plan.NewLedger(p)
	readAll(p, client, again)
	plan.CheckTimestamps(p, again, func(ms int64) map[int32]int64 {
		found := map[int32]int64{}
		for partition := range int32(plan.Partitions) {
			offset, err := client.GetOffset(p.Topic, partition, ms)
			plan.Need(err, "offset by timestamp")
			found[partition] = offset
		}
		return found
	})
	plan.CheckLedgers(seen, again)
}
