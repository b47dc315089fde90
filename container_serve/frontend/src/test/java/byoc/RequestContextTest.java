package byoc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import byoc.workers.Memory;
import io.netty.handler.codec.http.DefaultHttpRequest;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpVersion;
import java.util.EnumSet;
import org.junit.jupiter.api.Test;

final class RequestContextTest {
    private static final Memory MEMORY = new Memory(100, 100);

    private static RequestContext context(String... headers) {
        DefaultHttpRequest request = new DefaultHttpRequest(HttpVersion.HTTP_1_1, HttpMethod.POST, "/invocations");
        for (int i = 0; i < headers.length; i += 2) {
            request.headers().add(headers[i], headers[i + 1]);
        }
        Target target = new Target("POST", "/invocations", EnumSet.of(Route.Group.ONE_MODEL));
        return new RequestContext(null, request, target, MEMORY);
    }

    @Test
    void theInferenceIdTakesPrecedenceOverOtherIds() {
        assertEquals("mine", context("x-request-id", "proxy", "X-AMZN-SageMaker-Inference-Id", "mine").id);
        assertEquals("proxy", context("x-request-id", "proxy", "X-Amzn-RequestId", "").id);
        assertNotEquals(context().id, context().id);
    }

    @Test
    void anIdCannotForgeALineOfTheLog() {
        assertEquals("a?b??", RequestContext.printable("a\nb\u001b\u00e9", 99));
        assertEquals(128, context("X-Request-Id", "x".repeat(1000)).id.length());
    }

    @Test
    void heldBytesAreTheLastThatWereSaid() {
        RequestContext context = context();
        context.hold(100);
        assertTrue(MEMORY.fits(0));
        assertFalse(MEMORY.fits(1));
        context.hold(30);
        assertTrue(MEMORY.fits(70));
        context.release();
        context.release();
        assertTrue(MEMORY.fits(100));
        assertFalse(MEMORY.fits(101));
    }

    @Test
    void aBodyForWhichThereIsNoMemoryIsGivenUpForTheOthers() {
        RequestContext first = context();
        RequestContext second = context();
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
