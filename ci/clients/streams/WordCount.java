import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;

/**
 * Counts words with Kafka Streams until it is stopped. Arguments: LINES COUNTS STORE NAME=VALUE..., where LINES and COUNTS
 * are topics, STORE is how the state store is called, and the rest are settings of Streams.
 *
 * With a cache of no bytes each word of a line becomes one record of its new count.
 */
public final class WordCount {
    private static final Duration CLOSE_MAX = Duration.ofSeconds(20);
    private static final int FAILED = 4;

    private WordCount() {}

    public static void main(String[] arguments) {
        Properties settings = new Properties();
        for (String setting : List.of(arguments).subList(3, arguments.length)) {
            int equals = setting.indexOf('=');
            settings.put(setting.substring(0, equals), setting.substring(equals + 1));
        }
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(arguments[0], Consumed.with(Serdes.String(), Serdes.String()))
            .flatMapValues(line -> List.of(line.split(" ")))
            .groupBy((key, word) -> word, Grouped.with("words", Serdes.String(), Serdes.String()))
            .count(Materialized.as(arguments[2]))
            .toStream()
            .to(arguments[1], Produced.with(Serdes.String(), Serdes.Long()));
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            // Nothing that a broker's end brings about may end the application.
            Runtime.getRuntime().halt(FAILED);
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.setStateListener((state, before) -> System.out.println("state " + state));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            if (!streams.close(CLOSE_MAX)) {
                System.out.println("not closed in time");
                Runtime.getRuntime().halt(FAILED);
            }
        }));
        streams.start();
    }
}
