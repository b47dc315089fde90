package byoc;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;

/**
 * What the Python supervisor says on our standard input: every half second one word, its state
 * (starting, ready, draining). No word for a while means that it hangs; end of input, that it died.
 */
final class Supervisor {
    private static final long STALE_NANOS = 3_000_000_000L;

    private static volatile String state = "starting";
    private static volatile long heard = System.nanoTime();

    private Supervisor() {}

    static void listen(InputStream input) {
        Thread thread = new Thread(() -> read(input), "supervisor");
        thread.setDaemon(true);
        thread.start();
    }

    private static void read(InputStream input) {
        try (BufferedReader lines = new BufferedReader(new InputStreamReader(input, StandardCharsets.US_ASCII))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                state = line;
                heard = System.nanoTime();
            }
        } catch (IOException ignored) {
            // the same as its end
        }
        Runtime.getRuntime().halt(1);
    }

    /** starting, ready, draining, or silent. */
    static String state() {
        return System.nanoTime() - heard < STALE_NANOS ? state : "silent";
    }
}
