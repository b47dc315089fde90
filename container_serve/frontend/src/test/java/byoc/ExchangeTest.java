package byoc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.netty.handler.codec.http.DefaultHttpRequest;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpVersion;
import org.junit.jupiter.api.Test;

final class ExchangeTest {
    private static Exchange exchange(String... headers) {
        DefaultHttpRequest request = new DefaultHttpRequest(HttpVersion.HTTP_1_1, HttpMethod.POST, "/invocations");
        for (int i = 0; i < headers.length; i += 2) {
            request.headers().add(headers[i], headers[i + 1]);
        }
        return new Exchange(request, "/invocations");
    }

    @Test
    void theInferenceIdTakesPrecedenceOverOtherIds() {
        assertEquals("mine", exchange("x-request-id", "proxy", "X-AMZN-SageMaker-Inference-Id", "mine").id);
        assertEquals("proxy", exchange("x-request-id", "proxy", "X-Amzn-RequestId", "").id);
        assertNotEquals(exchange().id, exchange().id);
    }

    @Test
    void anIdCannotForgeALineOfTheLog() {
        assertEquals("a?b??", Exchange.printable("a\nb\u001b\u00e9", 99));
        assertEquals(128, exchange("X-Request-Id", "x".repeat(1000)).id.length());
    }

    @Test
    void placesInTheQueueAreCountedAndGivenBackOnce() {
        Exchange first = exchange();
        Exchange second = exchange();
        assertTrue(first.enqueue(1));
        assertFalse(second.enqueue(1));
        assertEquals(1, Health.QUEUED.get());
        first.release();
        first.release();
        second.release();
        assertEquals(0, Health.QUEUED.get());
        assertTrue(second.enqueue(1));
        second.release();
    }

    @Test
    void heldBytesAreTheLastThatWereSaid() {
        Exchange exchange = exchange();
        long before = Health.HELD_BYTES.get();
        exchange.hold(100);
        exchange.hold(30);
        assertEquals(before + 30, Health.HELD_BYTES.get());
        exchange.release();
        assertEquals(before, Health.HELD_BYTES.get());
    }
}
