package byoc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import byoc.workers.Memory;
import io.netty.handler.codec.http.DefaultHttpRequest;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpVersion;
import org.junit.jupiter.api.Test;

final class ExchangeTest {
    private static final Memory MEMORY = new Memory(100, 100);

    private static Exchange exchange(String... headers) {
        DefaultHttpRequest request = new DefaultHttpRequest(HttpVersion.HTTP_1_1, HttpMethod.POST, "/invocations");
        for (int i = 0; i < headers.length; i += 2) {
            request.headers().add(headers[i], headers[i + 1]);
        }
        return new Exchange(request, "/invocations", MEMORY);
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
    void heldBytesAreTheLastThatWereSaid() {
        Exchange exchange = exchange();
        exchange.hold(100);
        assertTrue(MEMORY.fits(0));
        assertFalse(MEMORY.fits(1));
        exchange.hold(30);
        assertTrue(MEMORY.fits(70));
        exchange.release();
        exchange.release();
        assertTrue(MEMORY.fits(100));
        assertFalse(MEMORY.fits(101));
    }

    @Test
    void aBodyForWhichThereIsNoMemoryIsGivenUpForTheOthers() {
        Exchange first = exchange();
        Exchange second = exchange();
        first.received = 60;
        second.received = 40;
        assertTrue(first.grow());
        assertTrue(second.grow());
        first.received = 70;
        second.received = 90;
        assertFalse(first.grow());
        assertTrue(second.grow());
        assertFalse(MEMORY.fits(11));
        first.release();
        second.release();
        assertTrue(MEMORY.fits(100));
    }
}
