// A cache in use by Jedis.

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.RedisClient;
import redis.clients.jedis.RedisClusterClient;
import redis.clients.jedis.RedisProtocol;
import redis.clients.jedis.StreamEntryID;
import redis.clients.jedis.UnifiedJedis;
import redis.clients.jedis.exceptions.JedisDataException;

public class WithJedis {
    static void equal(Object got, Object wanted) {
        if (!got.equals(wanted)) {
            throw new AssertionError("got " + got + ", not " + wanted);
        }
    }

    static void use(UnifiedJedis client) {
        for (int n = 0; n < 300; n++) {
            client.setex("key:" + n, 600, Integer.toString(n));
        }
        for (int n = 0; n < 300; n++) {
            equal(client.get("key:" + n), Integer.toString(n));
        }
        equal(client.incrBy("{a}count", 5), 5L);
        client.hset("{a}user", Map.of("name", "Ada", "born", "1815"));
        equal(client.hgetAll("{a}user"), new HashMap<>(Map.of("name", "Ada", "born", "1815")));
        client.rpush("{a}queue", "one", "two");
        equal(client.blpop(1, "{a}queue").get(1), "one");
        client.sadd("{a}set", "x", "y");
        equal(Set.copyOf(client.smembers("{a}set")), Set.of("x", "y"));
        client.zadd("{a}board", Map.of("bob", 2.0, "ann", 1.0));
        equal(client.zrange("{a}board", 0, -1), List.of("ann", "bob"));
        client.xadd("{a}stream", StreamEntryID.NEW_ENTRY, Map.of("event", "made"));
        equal(client.xlen("{a}stream"), 1L);
        String script = "return redis.call('INCRBY', KEYS[1], ARGV[1]) * 2";
        equal(client.eval(script, List.of("{a}scripted"), List.of("21")), 42L);
        try (var pipeline = client.pipelined()) {
            for (int n = 0; n < 99; n++) {
                pipeline.incr("piped:" + n % 10);
            }
            var last = pipeline.incr("piped:9");
            pipeline.sync();
            equal(last.get(), 10L);
        }
        try {
            client.lpush("{a}count", "x");
            throw new AssertionError("a list was made of a number");
        } catch (JedisDataException error) {
            equal(error.getMessage().startsWith("WRONGTYPE"), true);
        }
    }

    public static void main(String[] args) {
        HostAndPort at = HostAndPort.from(System.getenv("LARDER_ADDRESS"));
        boolean isCluster = "yes".equals(System.getenv("LARDER_CLUSTER"));
        for (RedisProtocol protocol : List.of(RedisProtocol.RESP2, RedisProtocol.RESP3)) {
            var config = DefaultJedisClientConfig.builder()
                    .password(System.getenv("LARDER_PASSWORD"))
                    .protocol(protocol)
                    .build();
            UnifiedJedis client = isCluster
                    ? RedisClusterClient.builder().nodes(Set.of(at)).clientConfig(config).build()
                    : RedisClient.builder().hostAndPort(at).clientConfig(config).build();
            client.flushAll();
            use(client);
            if (!isCluster) {
                try (var transaction = client.multi()) {
                    transaction.incr("{a}count");
                    var value = transaction.get("{a}count");
                    transaction.exec();
                    equal(value.get(), "6");
                }
            }
            client.close();
        }
        System.out.println("Jedis");
    }
}
