// A cache in use by go-redis.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func equal[T comparable](got, want T) {
	if got != want {
		log.Fatalf("got %v, not %v", got, want)
	}
}

func connect(protocol int) redis.UniversalClient {
	address, password := os.Getenv("LARDER_ADDRESS"), os.Getenv("LARDER_PASSWORD")
	// With RESP3 the server has to tell of what is about to change, or the connection is not made.
	maintenance := &maintnotifications.Config{Mode: maintnotifications.ModeEnabled}
	if protocol == 2 {
		maintenance.Mode = maintnotifications.ModeDisabled
	}
	if os.Getenv("LARDER_CLUSTER") == "yes" {
		return redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: []string{address}, Password: password, Protocol: protocol, MaintNotificationsConfig: maintenance,
		})
	}
	return redis.NewClient(&redis.Options{
		Addr: address, Password: password, Protocol: protocol, MaintNotificationsConfig: maintenance,
	})
}

func empty(ctx context.Context, client redis.UniversalClient) {
	if cluster, ok := client.(*redis.ClusterClient); ok {
		err := cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
			return node.FlushAll(ctx).Err()
		})
		if err != nil {
			log.Fatal(err)
		}
		return
	}
	must(client.FlushAll(ctx).Result())
}

func use(ctx context.Context, client redis.UniversalClient) {
	for n := range 300 {
		must(client.Set(ctx, "key:"+strconv.Itoa(n), n, 10*time.Minute).Result())
	}
	for n := range 300 {
		equal(must(client.Get(ctx, "key:"+strconv.Itoa(n)).Int()), n)
	}
	_, err := client.Get(ctx, "none").Result()
	equal(errors.Is(err, redis.Nil), true)
	equal(must(client.IncrBy(ctx, "{a}count", 5).Result()), 5)
	must(client.HSet(ctx, "{a}user", "name", "Ada", "born", 1815).Result())
	equal(must(client.HGetAll(ctx, "{a}user").Result())["born"], "1815")
	must(client.RPush(ctx, "{a}queue", "one", "two").Result())
	equal(must(client.BLPop(ctx, time.Second, "{a}queue").Result())[1], "one")
	must(client.ZAdd(ctx, "{a}board", redis.Z{Score: 2, Member: "bob"}, redis.Z{Score: 1, Member: "ann"}).Result())
	equal(strings.Join(must(client.ZRange(ctx, "{a}board", 0, -1).Result()), " "), "ann bob")
	id := must(client.XAdd(ctx, &redis.XAddArgs{Stream: "{a}stream", Values: []string{"event", "made"}}).Result())
	equal(must(client.XRange(ctx, "{a}stream", "-", "+").Result())[0].ID, id)
	script := redis.NewScript("return redis.call('INCRBY', KEYS[1], ARGV[1]) * 2")
	equal(must(script.Run(ctx, client, []string{"{a}scripted"}, 21).Int()), 42)
	pipe := client.Pipeline()
	for n := range 100 {
		pipe.Incr(ctx, "piped:"+strconv.Itoa(n%10))
	}
	done := must(pipe.Exec(ctx))
	equal(done[99].(*redis.IntCmd).Val(), 10)
	err = client.Watch(ctx, func(tx *redis.Tx) error {
		value := must(tx.Get(ctx, "{a}count").Int())
		_, err := tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
			return pipe.Set(ctx, "{a}count", value*2, 0).Err()
		})
		return err
	}, "{a}count")
	must(0, err)
	equal(must(client.Get(ctx, "{a}count").Int()), 10)
	err = client.LPush(ctx, "{a}count", "x").Err()
	equal(err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE"), true)
}

func listen(ctx context.Context, client redis.UniversalClient) {
	listener := client.Subscribe(ctx, "news")
	defer listener.Close()
	must(listener.Receive(ctx))
	must(client.Publish(ctx, "news", "hello").Result())
	equal(must(listener.ReceiveMessage(ctx)).Payload, "hello")
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, protocol := range []int{2, 3} {
		client := connect(protocol)
		empty(ctx, client)
		use(ctx, client)
		if os.Getenv("LARDER_CLUSTER") != "yes" {
			listen(ctx, client)
		}
		client.Close()
	}
	fmt.Println("go-redis", redis.Version())
}
