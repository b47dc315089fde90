package byoc;

import byoc.workers.WorkerPool;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.atomic.LongAdder;
import java.util.stream.Stream;

/** The answer of GET /metrics, in Prometheus's text format. Counters begin with the server. */
final class Metrics {
    static final String TYPE = "text/plain; version=0.0.4; charset=utf-8";
    private static final double[] BOUNDS = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}; // seconds
    private static final Map<String, LongAdder> REQUESTS = new ConcurrentSkipListMap<>(); // by their labels
    private static final LongAdder[] DURATIONS = new LongAdder[BOUNDS.length + 1]; // predictions by the least bound
    private static final LongAdder NANOS = new LongAdder(); // of all predictions

    static {
        Arrays.setAll(DURATIONS, i -> new LongAdder());
    }

    private Metrics() {}

    /** `route`: null for a request that no route takes. */
    static void count(Route route, int status, long nanos) {
        String name = route == null ? "none" : route.name().toLowerCase(Locale.ROOT);
        String labels = "route=\"" + name + "\",code=\"" + status + "\"";
        REQUESTS.computeIfAbsent(labels, key -> new LongAdder()).increment();
        if (route != null && route.isPrediction()) {
            int bound = Arrays.binarySearch(BOUNDS, nanos / 1e9);
            DURATIONS[bound < 0 ? -bound - 1 : bound].increment();
            NANOS.add(nanos);
        }
    }

    static String text() {
        StringBuilder text = new StringBuilder();
        family(text, "requests_total", "counter", "Requests that were answered, by route and status code.");
        REQUESTS.forEach((labels, count) -> sample(text, "requests_total", labels, count.sum()));

        String name = "request_duration_seconds";
        family(text, name, "histogram", "Time from a request for predictions to its answer, with any status.");
        long count = 0;
        for (int i = 0; i < DURATIONS.length; i++) {
            count += DURATIONS[i].sum();
            sample(text, name + "_bucket", "le=\"" + (i < BOUNDS.length ? BOUNDS[i] : "+Inf") + "\"", count);
        }
        sample(text, name + "_sum", "", NANOS.sum() / 1e9);
        sample(text, name + "_count", "", count);

        gauge(text, "requests_waiting", "Requests that wait for a worker.", Health.workers.waiting());
        gauge(text, "requests_in_flight", "Requests that were accepted and are not answered yet.", Health.IN_FLIGHT.get());
        gauge(text, "workers", "Workers that hold a loaded model.", Health.workers.loaded());
        family(text, "worker_restarts_total", "counter", "Workers that died and were replaced.");
        sample(text, "worker_restarts_total", "", WorkerPool.DIED);
        family(text, "resident_memory_bytes", "gauge", "Resident memory; pages that processes share count in each.");
        ProcessHandle java = ProcessHandle.current();
        sample(text, "resident_memory_bytes", "process=\"supervisor\"", memory(java.parent().stream()));
        sample(text, "resident_memory_bytes", "process=\"front_end\"", memory(Stream.of(java)));
        sample(text, "resident_memory_bytes", "process=\"workers\"", memory(java.descendants()));
        return text.toString();
    }

    private static void gauge(StringBuilder text, String name, String help, long value) {
        family(text, name, "gauge", help);
        sample(text, name, "", value);
    }

    private static void family(StringBuilder text, String name, String type, String help) {
        text.append(String.format("# HELP byoc_%1$s %3$s%n# TYPE byoc_%1$s %2$s%n", name, type, help));
    }

    private static void sample(StringBuilder text, String name, String labels, Number value) {
        text.append("byoc_").append(name).append(labels.isEmpty() ? "" : "{" + labels + "}");
        text.append(' ').append(value).append('\n');
    }

    private static long memory(Stream<ProcessHandle> processes) {
        return processes.mapToLong(process ->
                1024 * ModelMemory.number(Path.of("/proc", Long.toString(process.pid()), "status"), "VmRSS:")).sum();
    }
}
