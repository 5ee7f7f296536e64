// Package plan is the Go statement of what every client of the matrix does and
// must see; ../../python/plan.py describes it.
package plan

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	Partitions    = 3
	All           = 11_000
	BeforeRestart = 10_000
	// One wait for one thing (an assignment, a stage's records) takes no longer.
	Wait = 40 * time.Second
)

// Stages says where each stage's records begin and end.
var Stages = [][2]int{{0, 4000}, {4000, 7000}, {7000, BeforeRestart}, {BeforeRestart, All}}

// Codecs are those that both Go clients have.
var Codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

type Header struct{ Key, Value string }

type Record struct {
	Key, Value string
	Headers    []Header
	Timestamp  int64
}

// Place is where a record was read.
type Place struct {
	Partition int32
	Offset    int64
}

type Plan struct {
	Bootstrap, Topic, Group string
	first                   int64
}

// FromArguments reads BOOTSTRAP TOPIC GROUP FIRST_TIMESTAMP.
func FromArguments() *Plan {
	if len(os.Args) != 5 {
		GiveUp("usage: %s BOOTSTRAP TOPIC GROUP FIRST_TIMESTAMP", os.Args[0])
	}
	first, err := strconv.ParseInt(os.Args[4], 10, 64)
	if err != nil {
		GiveUp("FIRST_TIMESTAMP: %v", err)
	}
	p := &Plan{os.Args[1], os.Args[2], os.Args[3], first}
	sent := map[string]int{}
	for n := range All {
		sent[codecOf(n)]++
	}
	line := "INFO codecs"
	for _, codec := range Codecs {
		line += fmt.Sprintf(" %s=%d", codec, sent[codec])
	}
	fmt.Println(line)
	return p
}

// Range returns the records [low, high) of a stage that go out with a codec.
func Range(stage, codec int) (low, high int) {
	start, length := Stages[stage][0], Stages[stage][1]-Stages[stage][0]
	return start + length*codec/len(Codecs), start + length*(codec+1)/len(Codecs)
}

func codecOf(n int) string {
	for stage := range Stages {
		for i, codec := range Codecs {
			if low, high := Range(stage, i); low <= n && n < high {
				return codec
			}
		}
	}
	return "?"
}

func (p *Plan) Timestamp(n int) int64 { return p.first + 10*int64(n) }

func (p *Plan) Record(n int) Record {
	return Record{
		Key:   fmt.Sprintf("key-%d", n%101),
		Value: fmt.Sprintf("value-%d:", n) + strings.Repeat("abcdefghij", 10+n%20),
		Headers: []Header{
			{"n", strconv.Itoa(n)},
			{"codec", codecOf(n)},
			{"dup", "a"},
			{"dup", "b"},
			{"bytes", string([]byte{0x00, 0xff, byte(n)})},
			{"empty", ""},
		},
		Timestamp: p.Timestamp(n),
	}
}

// Ledger holds every record that was read, checked as it comes.
type Ledger struct {
	mu                                 sync.Mutex
	plan                               *Plan
	places                             map[int]Place
	next                               map[int32]int64
	lastOfKey                          map[string]int
	partitionOfKey                     map[string]int32
	wrong, disordered, repeated, jumps []string
}

func NewLedger(p *Plan) *Ledger {
	return &Ledger{
		plan: p, places: map[int]Place{}, next: map[int32]int64{},
		lastOfKey: map[string]int{}, partitionOfKey: map[string]int32{},
	}
}

func (l *Ledger) Add(at Place, got Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	where := fmt.Sprintf("%s-%d offset %d", l.plan.Topic, at.Partition, at.Offset)
	digits, _, found := strings.Cut(strings.TrimPrefix(got.Value, "value-"), ":")
	n, err := strconv.Atoi(digits)
	if err != nil || !found {
		l.wrong = append(l.wrong, fmt.Sprintf("%s: a value that nobody sent: %q", where, got.Value))
		return
	}
	want := l.plan.Record(n)
	if got.Key != want.Key || got.Value != want.Value || got.Timestamp != want.Timestamp || !slices.Equal(got.Headers, want.Headers) {
		l.wrong = append(l.wrong, fmt.Sprintf("%s: %+v, not %+v", where, got, want))
	}
	if before, twice := l.places[n]; twice {
		l.repeated = append(l.repeated, fmt.Sprintf("record %d at %s, before at %v", n, where, before))
		return
	}
	if at.Offset != l.next[at.Partition] {
		l.jumps = append(l.jumps, fmt.Sprintf("%s came where offset %d was next", where, l.next[at.Partition]))
	}
	if last, known := l.lastOfKey[got.Key]; known && last > n {
		l.disordered = append(l.disordered, fmt.Sprintf("%s: %s has %d after %d", where, got.Key, n, last))
	}
	if partition, known := l.partitionOfKey[got.Key]; known && partition != at.Partition {
		l.disordered = append(l.disordered, fmt.Sprintf("%s: %s was in partition %d before", where, got.Key, partition))
	}
	l.lastOfKey[got.Key], l.partitionOfKey[got.Key] = n, at.Partition
	l.next[at.Partition], l.places[n] = at.Offset+1, at
}

// Has says whether so many different records were read.
func (l *Ledger) Has(records int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.places) >= records
}

// Next returns the offset after the last record read, by partition.
func (l *Ledger) Next() map[int32]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.next)
}

// offsetAt is the offset of the first record at or after record n's time, or -1.
func (l *Ledger) offsetAt(partition int32, n int) int64 {
	for ; n < All; n++ {
		if place, read := l.places[n]; read && place.Partition == partition {
			return place.Offset
		}
	}
	return -1
}

// Check prints a verdict for the runner.
func Check(name string, ok bool, format string, values ...any) {
	verdict := map[bool]string{true: "ok", false: "fail"}[ok]
	fmt.Printf("CHECK %s %s %s\n", name, verdict, strings.ReplaceAll(fmt.Sprintf(format, values...), "\n", " "))
}

// Must is Check where nothing after a failure could be judged.
func Must(name string, ok bool, format string, values ...any) {
	Check(name, ok, format, values...)
	if !ok {
		GiveUp("%s", name)
	}
}

func GiveUp(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "given up: "+format+"\n", values...)
	os.Exit(1)
}

// Need gives up on an error.
func Need(err error, what string) {
	if err != nil {
		GiveUp("%s: %v", what, err)
	}
}

// Until calls step until the condition holds; a step blocks for a little while.
func Until(holds func() bool, step func(), what string) {
	for end := time.Now().Add(Wait); !holds(); step() {
		if time.Now().After(end) {
			GiveUp("waited %v for %s", Wait, what)
		}
	}
}

// AwaitRestart returns once the runner has restarted the broker.
func AwaitRestart() {
	fmt.Println("RESTART")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		GiveUp("the runner is gone: %v", err)
	}
}

// Split says whether two members share all partitions, each having some.
func Split(a, b []int32) bool {
	both := append(slices.Clone(a), b...)
	slices.Sort(both)
	return len(a) > 0 && len(b) > 0 && slices.Equal(both, []int32{0, 1, 2})
}

// CheckTimestamps looks up records, and moments between two of them. lookup
// answers -1 for a partition that has no record so late.
func CheckTimestamps(p *Plan, l *Ledger, lookup func(ms int64) map[int32]int64) {
	var wrong []string
	asked := 0
	for _, n := range []int{0, 1, 1234, 3999, 6999, 9999, 10_500, 10_999} {
		for late := range 2 {
			got := lookup(p.Timestamp(n) + 5*int64(late))
			for partition := range int32(Partitions) {
				asked++
				offset, answered := got[partition]
				if want := l.offsetAt(partition, n+late); !answered || offset != want {
					wrong = append(wrong, fmt.Sprintf("record %d + %d ms in partition %d: offset %d, not %d", n, 5*late, partition, offset, want))
				}
			}
		}
	}
	verdict("timestamp", wrong, fmt.Sprintf("%d lookups, each exact", asked))
}

// CheckLedgers gives the verdicts on what the group saw and what is read again
// at the end.
func CheckLedgers(group, again *Ledger) {
	read := fmt.Sprintf("%d in the group, %d from the beginning", len(group.places), len(again.places))
	verdict("records", append(group.wrong, again.wrong...), read)
	verdict("order", append(group.disordered, again.disordered...), read)
	wrong := slices.Concat(group.repeated, group.jumps, again.repeated, again.jumps)
	for _, l := range []*Ledger{group, again} {
		for n := range All {
			if _, found := l.places[n]; !found {
				wrong = append(wrong, fmt.Sprintf("%d lost, the first is record %d", All-len(l.places), n))
				break
			}
		}
	}
	if !maps.Equal(group.places, again.places) {
		wrong = append(wrong, "the group saw records at other offsets than the read from the beginning")
	}
	verdict("once", wrong, fmt.Sprintf("%d records, none lost, none twice", All))
}

func verdict(name string, wrong []string, good string) {
	if len(wrong) > 0 {
		good = fmt.Sprintf("%d faults: %s", len(wrong), strings.Join(wrong[:min(3, len(wrong))], "; "))
	}
	Check(name, len(wrong) == 0, "%s", good)
}
